"""Asking the managers for what concerns this node's own certificate and membership: by mTLS, and by HTTPS for a new
certificate once the old one has expired."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import grpc

from pyswarm.v1 import ca_pb2, ca_pb2_grpc
from pyswarm_common.errors import Forbidden, NodeRemoved, PyswarmError, Unavailable
from pyswarm_common.identity import NodeIdentity, generate_key, join_client, key_to_pem, make_csr, role_name
from pyswarm_common.identity.renewal import expired_request
from pyswarm_common.model import NodeRole
from pyswarm_common.rpc import error_from_rpc, open_channel

_log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
T = TypeVar("T")


async def renew(identity: NodeIdentity, managers: Sequence[str]) -> NodeIdentity:
    """A certificate for a new key, with the role that the cluster wants for this node now."""
    key = generate_key()
    request = ca_pb2.RenewCertificateRequest(csr=make_csr(key))
    answer = await _ask(identity, managers, lambda stub: stub.RenewCertificate(request, timeout=_TIMEOUT_S))
    return NodeIdentity(answer.certificate, key_to_pem(key), answer.root_ca_cert)


async def renew_expired(identity: NodeIdentity, managers: Sequence[str]) -> NodeIdentity:
    """A certificate for the same key, for one that has expired: TLS refuses it, so it goes through the HTTPS door."""
    request = expired_request(identity, time.time())
    last: PyswarmError = Unavailable("no manager is known")
    for address in managers:
        try:
            answer = await join_client.renew_expired(address, identity.root_cert_pem, request)
        except Forbidden:
            raise
        except PyswarmError as error:  # one that has not got its own certificate renewed yet proves nothing
            last = error
            continue
        return NodeIdentity(answer.certificate, identity.key_pem, answer.root_ca_cert)
    raise last


async def removal(identity: NodeIdentity, managers: Sequence[str]) -> str:
    """What a manager says of this node's removal from the cluster, if any does. Changes nothing: a certificate
    that has not expired is not renewed this way."""
    if time.time() >= identity.validity[1]:
        return ""  # that is the role loop's to ask
    request = expired_request(identity, time.time())
    for address in managers:
        try:
            await join_client.renew_expired(address, identity.root_cert_pem, request)
        except NodeRemoved as removed:
            return f"{address}: {removed}"
        except PyswarmError as error:
            _log.debug("asked whether this node was removed: %s", error)
    return ""


async def leave(identity: NodeIdentity, managers: Sequence[str], *, force: bool) -> None:
    """Tell the cluster that this node goes."""
    request = ca_pb2.LeaveRequest(force=force)
    await _ask(identity, managers, lambda stub: stub.Leave(request, timeout=_TIMEOUT_S))


async def _ask(
    identity: NodeIdentity, managers: Sequence[str], call: Callable[[ca_pb2_grpc.CAAsyncStub], Awaitable[T]]
) -> T:
    """The first manager's answer; those that cannot be reached are passed over."""
    last: Exception = Unavailable("no manager is known")
    for address in managers:
        async with open_channel(address, identity, role_name(NodeRole.MANAGER)) as channel:
            try:
                return await call(ca_pb2_grpc.CAStub(channel))
            except grpc.aio.AioRpcError as error:
                refusal = error_from_rpc(error)
                if not isinstance(refusal, Unavailable):
                    raise refusal from error
                last = Unavailable(f"{address}: {refusal}")
    raise last

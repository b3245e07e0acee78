"""Asking the managers for what concerns this node's own certificate and membership, by mTLS."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import grpc

from pyswarm.v1 import ca_pb2, ca_pb2_grpc
from pyswarm_common.errors import Unavailable
from pyswarm_common.identity import NodeIdentity, generate_key, key_to_pem, make_csr, role_name
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

"""Who calls: a node or a person by the client certificate, or root of this machine through the local socket."""

from __future__ import annotations

import abc
import functools
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc

from pyswarm_common import errors
from pyswarm_common.identity import NodeIdentity
from pyswarm_common.identity.people import read_person
from pyswarm_common.model import NodeRole
from pyswarm_common.model.states import PersonRole


class Caller(Enum):
    """What a caller is, as far as a table of methods cares."""

    WORKER = "worker"
    MANAGER = "manager"
    LOCAL = "local"  # through the local unix socket: root on this machine
    ANYONE = "anyone"  # no certificate asked for
    VIEWER = "viewer"  # people, by role
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def is_person(self) -> bool:
        """Somebody with an API token or a client certificate of their own."""
        return self in _PEOPLE


_PEOPLE = frozenset({Caller.VIEWER, Caller.OPERATOR, Caller.ADMIN})
_CALLER_OF_PERSON = {
    PersonRole.VIEWER: Caller.VIEWER,
    PersonRole.OPERATOR: Caller.OPERATOR,
    PersonRole.ADMIN: Caller.ADMIN,
}


@dataclass(frozen=True, slots=True)
class Peer:
    """Who calls. A person has a name and a credential instead of a node id."""

    caller: Caller
    node_id: str = ""
    cluster_id: str = ""
    name: str = ""
    credential_id: str = ""
    fingerprint: str = ""
    """Of the certificate's key; empty for whoever came with a token."""
    expires_at: float = 0.0
    """When the person's certificate ends; a connection may outlive it."""
    address: str = ""
    """Where the call came from; empty: through this machine's socket."""


def caller_of_person(role: PersonRole) -> Caller:
    return _CALLER_OF_PERSON[role]


class InProcessContext(abc.ABC):
    """A call that this process makes on behalf of a caller it has verified itself. Nobody else can make one."""

    @property
    @abc.abstractmethod
    def verified_peer(self) -> Peer: ...


LOCAL_PEER = Peer(Caller.LOCAL)
_CALLERS = {NodeRole.MANAGER: Caller.MANAGER, NodeRole.WORKER: Caller.WORKER}


def peer_of(context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
    """The caller by its client certificate; a unix socket's caller is local. Raises Unauthenticated."""
    if isinstance(context, InProcessContext):
        return context.verified_peer
    if context.peer().startswith("unix:"):
        return LOCAL_PEER
    certificates = tuple(context.auth_context().get("x509_pem_cert", ()))
    if not certificates:
        raise errors.Unauthenticated("a node certificate is needed: join the cluster first")
    return _peer_of_certificate(certificates[0])


def certificate_of(context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    """The caller's certificate (PEM), which TLS has verified; empty for whoever came without one."""
    if isinstance(context, InProcessContext):
        return b""
    return bytes(next(iter(context.auth_context().get("x509_pem_cert", ())), b""))


@functools.lru_cache(maxsize=4096)
def _peer_of_certificate(pem: bytes) -> Peer:
    person = read_person(pem)
    if person is not None:
        return Peer(
            _CALLER_OF_PERSON[person.role],
            cluster_id=person.cluster_id,
            name=person.name,
            credential_id=person.credential_id,
            fingerprint=person.fingerprint,
            expires_at=person.expires_at,
        )
    identity = NodeIdentity(cert_pem=pem, key_pem=b"", root_cert_pem=b"")
    return Peer(_CALLERS[identity.role], identity.node_id, identity.cluster_id)

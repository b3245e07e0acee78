"""Whether a caller's proof still holds, and in whose name a call changes something.

The guard asks once per call, after its table of methods. A person's token or certificate must be in the store, with the
same role, and not expired; so removing it there ends it, on streams that are open too. Of a forwarded call the caller
who asked first must be allowed the method as well. Decides nothing about nodes: `api.caller` and `ca` do.

Who acts next: the method; whatever it proposes is recorded as this caller's (`store.recording`).
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable

from pyswarm_common.errors import Forbidden, PyswarmError, Unauthenticated, Unavailable
from pyswarm_common.model.audit import AuditRecord
from pyswarm_common.model.objects import Credential
from pyswarm_common.model.states import CredentialKind
from pyswarm_common.rpc import Caller, Peer, caller_of_person
from pyswarm_manager.api.authorisation import CHANGES, TABLE
from pyswarm_manager.api.caller import Context, caller_of, forwarded_by
from pyswarm_manager.ports import Clock, IdentityProvider, RaftPort
from pyswarm_manager.store.recording import begin_call
from pyswarm_manager.store.tables import Tables

BARRIER_TIMEOUT_S = 1.0
UNKNOWN_CREDENTIAL = "this token or certificate was removed, or is none of this cluster's: ask an admin for a new one"
_FORWARDED_FOR_ANYONE = frozenset({"/pyswarm.v1.CA/IssueCertificate", "/pyswarm.v1.CA/RenewExpired"})
"""What a manager passes on for a machine that has no certificate that holds."""


_ROLE_NAMES = {Caller.LOCAL: "admin", Caller.ANYONE: ""}


class StoreAdmission:
    """The manager's, by its own view of the store."""

    def __init__(
        self, view: Callable[[], Tables], raft: Callable[[], RaftPort], identity: IdentityProvider, clock: Clock
    ) -> None:
        self._view, self._raft, self._clock = view, raft, clock
        self._node_id = identity().node_id  # stays the same when the certificate is renewed, and is slow to read

    async def admit(self, method: str, peer: Peer, context: Context) -> None:
        if peer.caller is Caller.LOCAL:
            begin_call(record_of(peer, method, self._node_id) if method in CHANGES else None)
            return
        caller = caller_of(context)
        passed_on_by = forwarded_by(context)
        if passed_on_by:
            _require_allowed(method, caller)
        if caller.caller.is_person:
            await self._require_valid(caller)
        if method not in CHANGES:
            begin_call(None)
            return
        begin_call(record_of(caller, method, passed_on_by or self._node_id))

    def recheck(self, peer: Peer) -> None:
        if peer.caller.is_person:
            check_credential(self._view(), peer, self._clock())

    async def _require_valid(self, caller: Peer) -> None:
        """By this manager's view; what is unknown may be so new that only the leader knows it."""
        try:
            check_credential(self._view(), caller, self._clock())
        except Unauthenticated:
            await wait_until_current(self._raft())
            check_credential(self._view(), caller, self._clock())


async def wait_until_current(raft: RaftPort) -> None:
    """Until everything that was acknowledged before is applied here."""
    try:
        async with asyncio.timeout(BARRIER_TIMEOUT_S):
            await raft.read_barrier()
    except (TimeoutError, PyswarmError) as error:
        raise Unavailable("the managers have no leader now, so who you are cannot be checked: try again") from error


def _require_allowed(method: str, caller: Peer) -> None:
    if caller.caller is Caller.ANYONE and method in _FORWARDED_FOR_ANYONE:
        return
    if caller.caller not in TABLE[method]:
        raise Forbidden(f"a manager passed on a call of {method} for a {caller.caller.value}, who may not make it")


def check_credential(view: Tables, peer: Peer, now: float) -> Credential:
    """The credential that the person came with. Unauthenticated if it does not hold (any more)."""
    credential = view.credentials.get(peer.credential_id)
    if credential is None or not _fits(credential, peer):
        raise Unauthenticated(UNKNOWN_CREDENTIAL)
    if 0.0 < credential.expires_at <= now or 0.0 < peer.expires_at <= now:
        raise Unauthenticated(f"the {credential.kind.name.lower()} {credential.name} has expired: ask for a new one")
    return credential


def _fits(credential: Credential, peer: Peer) -> bool:
    """A token's certificates come and go, so of them only the token is kept; a certificate's key must be the one."""
    if peer.caller is not caller_of_person(credential.role) or peer.name != credential.name:
        return False
    if credential.kind is CredentialKind.TOKEN:
        return True
    return hmac.compare_digest(credential.digest.hex(), peer.fingerprint)


def record_of(caller: Peer, method: str, manager_id: str) -> AuditRecord:
    """The beginnings of an audit record: who asks what, of which manager."""
    kind, actor = _actor(caller)
    return AuditRecord(
        actor_kind=kind,
        actor=actor,
        credential_id=caller.credential_id,
        role=_ROLE_NAMES.get(caller.caller, caller.caller.value),
        source=caller.address or ("unix" if caller.caller is Caller.LOCAL else ""),
        manager_id=manager_id,
        method=method.removeprefix("/pyswarm.v1."),
    )


def _actor(caller: Peer) -> tuple[str, str]:
    match caller.caller:
        case Caller.LOCAL:
            return "local", "root"
        case Caller.WORKER | Caller.MANAGER:
            return "node", caller.node_id
        case Caller.ANYONE:
            return "machine", ""
        case Caller.VIEWER | Caller.OPERATOR | Caller.ADMIN:
            return ("certificate" if caller.fingerprint else "token"), caller.name

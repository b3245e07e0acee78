"""Who a bearer is: the token in the Authorization header against the store.

Compares in constant time, also when there is no such token; counts what is wrong by address, so that nobody can guess
on. Whether the token has expired, and what its role may do, is decided as for everybody (`access.admission`, the
table).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final

from pyswarm_common.errors import InvalidArgument, Unauthenticated
from pyswarm_common.identity.people import ApiToken
from pyswarm_common.model.objects import Credential
from pyswarm_common.model.states import CredentialKind
from pyswarm_common.rpc import Peer, caller_of_person
from pyswarm_common.rpc.refusals import RefusalLog
from pyswarm_manager.access.admission import UNKNOWN_CREDENTIAL, wait_until_current
from pyswarm_manager.access.limits import PerPeriod
from pyswarm_manager.ports import RaftPort
from pyswarm_manager.store.tables import Tables

WRONG_TOKENS: Final = 10
WRONG_TOKEN_PERIOD_S: Final = 60.0
_NO_DIGEST: Final = bytes(32)
_MISSING: Final = "an API token is needed: send it as `Authorization: Bearer PSWT-1-…` (`pyswarm token create`)"


class Bearers:
    """Knows the bearer of a token, and how many wrong ones came from where."""

    def __init__(self, view: Callable[[], Tables], raft: Callable[[], RaftPort], now: Callable[[], float]) -> None:
        self._view, self._raft = view, raft
        refusal = "too many wrong tokens from this address: wait a minute, then try again"
        self._refusals = RefusalLog(now)
        self._wrong = PerPeriod(now, WRONG_TOKENS, WRONG_TOKEN_PERIOD_S, refusal)

    async def identify(self, authorization: str, address: str) -> Peer:
        """The caller by its token. Raises Unauthenticated, Exhausted (guessed too often) or Unavailable."""
        network = network_of(address)
        self._wrong.require_room(network)
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated(_MISSING)
        try:
            token = ApiToken.parse(text)
        except InvalidArgument as error:
            self._count_wrong(network)
            raise Unauthenticated(str(error)) from None
        credential = await self._find(token.id)
        is_right = token.matches(credential.digest if credential is not None else _NO_DIGEST)
        if credential is None or not is_right:
            self._count_wrong(network)
            raise Unauthenticated(UNKNOWN_CREDENTIAL)
        cluster = self._view().cluster
        return Peer(
            caller_of_person(credential.role),
            cluster_id=cluster.id if cluster is not None else "",
            name=credential.name,
            credential_id=credential.id,
            address=address,
        )

    def _count_wrong(self, network: str) -> None:
        self._wrong.add(network)
        self._refusals.note(f"somebody at {network}", "a wrong API token")

    async def _find(self, token_id: str) -> Credential | None:
        """What is unknown here may be so new that only the leader knows it."""
        if token_id not in self._view().credentials:
            await wait_until_current(self._raft())
        credential = self._view().credentials.get(token_id)
        return credential if credential is not None and credential.kind is CredentialKind.TOKEN else None


def network_of(address: str) -> str:
    """Whom to count wrong tokens for: an IPv4 address, or the /64 that one machine has of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)

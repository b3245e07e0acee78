"""Join tokens: what one allows, and those with an expiry or a number of uses.

Of a limited token only the hash of its secret is kept. A use is counted in the change set that creates the Node
(`ca.issuing`), so two machines cannot both have the last one. Tokens that can never be used again are kept for a
day, so that whoever comes with one is told why, and are then reaped (`ca.upkeep`).
"""

from __future__ import annotations

import hmac
import math
from dataclasses import dataclass

from msgspec.structs import replace

from pyswarm.v1 import security_pb2, types_pb2
from pyswarm_common.codec import to_proto
from pyswarm_common.errors import Exhausted, FailedPrecondition, InvalidArgument, NotFound, Unauthenticated
from pyswarm_common.identity import JoinToken, root_digest
from pyswarm_common.model import Cluster, LimitedJoinToken, NodeRole
from pyswarm_manager.api.validate import refuse
from pyswarm_manager.store.changes import Create, delete
from pyswarm_manager.store.recording import describe
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.trust import known_digests, token_root
from pyswarm_manager.writes import Writer, retried

MAX_TOKENS = 1_000
MAX_EXPIRY_S = 10 * 365 * 24 * 3600.0
MAX_USES = 1_000_000
MAX_LABEL = 64
KEPT_AFTER_END_S = 24 * 3600.0
_WRONG = "invalid join token: ask a manager for the present one with `pyswarm join-token worker` (or manager)"
_ASK = "ask for a new one with `pyswarm join-token create` on a manager"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a right token allows. `limited` is the token's object, if it has limits."""

    role: NodeRole
    limited: LimitedJoinToken | None = None


def grant_of(view: Tables, cluster: Cluster, text: str) -> Grant:
    """What the token allows, used up or not. Secrets are compared in constant time, whatever part is wrong."""
    token = JoinToken.parse(text)
    if token.digest not in known_digests(cluster):
        raise InvalidArgument("the join token belongs to another cluster: its digest is not that of this root")
    tokens = cluster.join_tokens
    is_worker = hmac.compare_digest(token.secret, JoinToken.parse(tokens.worker).secret)
    is_manager = hmac.compare_digest(token.secret, JoinToken.parse(tokens.manager).secret)
    limited = _with_secret(view, token)
    if is_manager:
        return Grant(NodeRole.MANAGER)
    if is_worker:
        return Grant(NodeRole.WORKER)
    if limited is None:
        raise Unauthenticated(_WRONG)
    return Grant(limited.role, limited)


def _with_secret(view: Tables, token: JoinToken) -> LimitedJoinToken | None:
    found = None
    for limited in view.join_tokens.values():  # all of them, so that the time tells nothing
        if hmac.compare_digest(limited.secret_hash, token.secret_hash):
            found = limited
    return found


def used_once(limited: LimitedJoinToken, now: float) -> LimitedJoinToken:
    """The token after one more use. Raises the reason if it allows none."""
    if limited.expires_at and now >= limited.expires_at:
        raise FailedPrecondition(f"this join token has expired: {_ASK}")
    if not limited.uses_total:
        return limited
    if not limited.uses_left:
        machines = "machine" if limited.uses_total == 1 else "machines"
        raise FailedPrecondition(
            f"this join token has been used up ({limited.uses_total} {machines} joined with it): {_ASK}"
        )
    return replace(limited, uses_left=limited.uses_left - 1)


def is_reapable(limited: LimitedJoinToken, now: float) -> bool:
    """Whether it ended so long ago that nobody need be told why."""
    has_expired = bool(limited.expires_at) and now >= limited.expires_at + KEPT_AFTER_END_S
    is_used_up = bool(limited.uses_total) and not limited.uses_left
    return has_expired or (is_used_up and now >= limited.meta.updated_at + KEPT_AFTER_END_S)


async def create(
    writer: Writer, cluster: Cluster, request: security_pb2.CreateJoinTokenRequest
) -> security_pb2.CreateJoinTokenResponse:
    _check(request)
    if len(writer.store.view.join_tokens) >= MAX_TOKENS:
        raise Exhausted(f"{MAX_TOKENS} join tokens exist: remove some with `pyswarm join-token rm`")
    token = JoinToken.generate(token_root(cluster))
    limited = LimitedJoinToken(
        id=writer.ids(),
        role=NodeRole(request.role),
        label=request.label,
        secret_hash=token.secret_hash,
        root_digest=token.digest,
        expires_at=writer.clock() + request.expires_in_s if request.expires_in_s else 0.0,
        uses_total=request.uses,
        uses_left=request.uses,
    )
    describe(f"join token {limited.id} for a {limited.role.name.lower()}")
    await writer.store.propose([Create(limited)])
    made = writer.store.view.join_tokens.get(limited.id, limited)
    return security_pb2.CreateJoinTokenResponse(token=str(token), join_token=_shown(made))


def _check(request: security_pb2.CreateJoinTokenRequest) -> None:
    violations = []
    if int(request.role) not in {int(role) for role in NodeRole}:
        violations.append(("role", "the role must be worker or manager"))
    if math.isnan(request.expires_in_s) or not 0 <= request.expires_in_s <= MAX_EXPIRY_S:
        violations.append(("expires_in_s", "the expiry must be at most ten years"))
    if request.uses > MAX_USES:
        violations.append(("uses", f"the number of uses must be at most {MAX_USES}"))
    if len(request.label) > MAX_LABEL or not request.label.isprintable():
        violations.append(("label", f"the label must be at most {MAX_LABEL} printable characters"))
    refuse(violations)


def listed(view: Tables) -> security_pb2.ListJoinTokensResponse:
    """The newest first."""
    newest = sorted(view.join_tokens.values(), key=lambda limited: (-limited.meta.created_at, limited.id))
    return security_pb2.ListJoinTokensResponse(join_tokens=[_shown(limited) for limited in newest])


async def remove(writer: Writer, reference: str) -> security_pb2.RemoveJoinTokenResponse:
    async def attempt() -> str:
        limited = _find(writer.store.view, reference)
        describe(f"join token {limited.id} for a {limited.role.name.lower()}")
        await writer.store.propose([delete(limited)])
        return limited.id

    return security_pb2.RemoveJoinTokenResponse(id=await retried(attempt))


def _find(view: Tables, reference: str) -> LimitedJoinToken:
    if not reference:
        raise InvalidArgument("which join token? give its id")
    found = [limited for limited in view.join_tokens.values() if limited.id.startswith(reference)]
    if not found:
        raise NotFound(f"join token {reference} not found")
    if len(found) > 1:
        raise InvalidArgument(f"join token {reference} is ambiguous ({len(found)} matches found): give more of the id")
    return found[0]


def _shown(limited: LimitedJoinToken) -> types_pb2.LimitedJoinToken:
    message: types_pb2.LimitedJoinToken = to_proto(replace(limited, secret_hash=b""))
    return message


def renewed_tokens(cluster: Cluster, root_pem: bytes) -> tuple[str, str]:
    """The permanent tokens (worker, manager) for that root: new ones where the old ones name another."""
    digest = root_digest(root_pem)

    def fitting(text: str) -> str:
        return text if JoinToken.parse(text).digest == digest else str(JoinToken.generate(root_pem))

    return fitting(cluster.join_tokens.worker), fitting(cluster.join_tokens.manager)

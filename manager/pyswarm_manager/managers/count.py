"""Which manager is to come or go next, so that the cluster keeps the number it was told to keep.

Pure: the state, what the leader heard when, and the time in; one promotion or demotion, or nothing, out. In this order:
finish what is under way, replace the dead (the substitute votes before the dead one goes, unless there are more
managers than wanted already), fill up, shrink, and only in quiet times move one from a crowded zone to an empty one. It
never takes away what the majority needs, and never asks for two things at once. Who acts next: `managers.keeper`
commits it, `ca.roles` and the node itself carry it out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyswarm_common.model import Availability, Node, NodeRole, NodeState
from pyswarm_manager.managers.quorum import Members, is_heard, leaving, rest_without
from pyswarm_manager.raft.core.types import MemberRole
from pyswarm_manager.store.tables import Tables

ZONE_LABEL = "zone"


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient the cluster is, in seconds."""

    settle_s: float = 5.0
    """Nothing is decided so soon after the managers changed."""
    rebalance_s: float = 30.0
    """Nor are managers moved between zones so soon after."""
    joining_s: float = 120.0
    """A node that does not vote by then is given up."""
    failed_s: float = 600.0
    """A node that was given up is not asked again so soon."""


@dataclass(frozen=True, slots=True)
class Promote:
    """A worker is to become a manager."""

    node_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Demote:
    """A manager is to become a worker."""

    node_id: str
    reason: str


Change = Promote | Demote


@dataclass(frozen=True, slots=True)
class History:
    """What the leader saw, in its own time. A new leader begins with nothing, which only makes it more patient."""

    quiet_since: float
    """Since then the managers are the same."""
    managers: frozenset[tuple[str, int, bool]] = frozenset()
    silent_since: Mapping[int, float] = field(default_factory=dict)
    """By raft id."""
    joining_since: Mapping[str, float] = field(default_factory=dict)
    """By node id."""
    failed_until: Mapping[str, float] = field(default_factory=dict)
    """By node id: not to be asked again before."""

    def observed(self, view: Tables, members: Members, now: float) -> History:
        """The history with what is seen now."""
        wanted = [node for node in view.nodes.values() if node.spec.role is NodeRole.MANAGER]
        managers = frozenset((n.id, _raft_id(n), _is_voter(members, n)) for n in wanted)
        joining = [node.id for node in wanted if not _is_voter(members, node)]
        silent = [raft_id for raft_id, member in members.items() if not is_heard(member)]
        return History(
            quiet_since=self.quiet_since if managers == self.managers else now,
            managers=managers,
            silent_since={raft_id: self.silent_since.get(raft_id, now) for raft_id in silent},
            joining_since={node_id: self.joining_since.get(node_id, now) for node_id in joining},
            failed_until={node_id: until for node_id, until in self.failed_until.items() if until > now},
        )

    def given_up(self, node_id: str, now: float, timing: Timing) -> History:
        """The node did not become a manager."""
        failed = {**self.failed_until, node_id: now + timing.failed_s}
        return History(self.quiet_since, self.managers, self.silent_since, self.joining_since, failed)


@dataclass(frozen=True, slots=True)
class _Scene:
    """The nodes, sorted into what they are to the managers."""

    view: Tables
    members: Members
    history: History
    now: float
    timing: Timing
    wanted: int
    grace_s: float
    standing: Sequence[Node]
    """Managers that vote and are not dead."""
    dead: Sequence[Node]
    """Managers that vote, by right, and were silent for too long."""
    joining: Sequence[Node]
    """To be managers, and no voters yet."""

    def is_heard(self, node: Node) -> bool:
        return is_heard(self.members[_raft_id(node)])

    def leads(self, node: Node) -> bool:
        return self.members[_raft_id(node)].is_leader

    def can_spare(self, node: Node) -> bool:
        return rest_without(self.members, leaving(self.view, self.members) | {_raft_id(node)}).is_safe


def next_manager_change(
    view: Tables, members: Members, history: History, now: float, timing: Timing | None = None
) -> Change | None:
    """The one change to make now, if any. `history` has observed this state already."""
    timing = timing or Timing()
    cluster = view.cluster
    if cluster is None or cluster.spec.managers == 0 or now - history.quiet_since < timing.settle_s:
        return None
    scene = _scene(view, members, history, now, timing)
    if scene.joining:
        return _give_up(scene)
    going = leaving(view, members)
    if going or _are_becoming_workers(view):
        # They will have gone in a moment, unless that would cost the majority: then only one more manager helps.
        is_stuck = bool(going) and not rest_without(members, going).is_safe
        return _replace_or_add(scene) if is_stuck and len(scene.standing) < scene.wanted else None
    return _bury(scene) or _replace_or_add(scene) or _shrink(scene) or _spread(scene)


def _scene(view: Tables, members: Members, history: History, now: float, timing: Timing) -> _Scene:
    assert view.cluster is not None
    spec = view.cluster.spec
    grace_s = spec.manager_grace_s
    wanted = [node for _, node in sorted(view.nodes.items()) if node.spec.role is NodeRole.MANAGER]
    voting = [node for node in wanted if _is_voter(members, node)]
    dead = [node for node in voting if now - history.silent_since.get(_raft_id(node), now) >= grace_s]
    return _Scene(
        view=view,
        members=members,
        history=history,
        now=now,
        timing=timing,
        wanted=spec.managers,
        grace_s=grace_s,
        standing=[node for node in voting if node not in dead],
        dead=dead,
        joining=[node for node in wanted if not _is_voter(members, node)],
    )


def _are_becoming_workers(view: Tables) -> bool:
    return any(n.spec.role is NodeRole.WORKER and n.role is NodeRole.MANAGER for n in view.nodes.values())


def _give_up(scene: _Scene) -> Demote | None:
    """Wait for the one that is joining, but not for ever, and for one that went down only as long as for any other."""
    for node in scene.joining:
        waited_s = scene.now - scene.history.joining_since.get(node.id, scene.now)
        is_down = node.status.state is NodeState.DOWN
        if waited_s >= (min(scene.grace_s, scene.timing.joining_s) if is_down else scene.timing.joining_s):
            why = "went down while it was joining" if is_down else "does not vote"
            return Demote(node.id, f"it {why} after {waited_s:.0f} s")
    return None


def _bury(scene: _Scene) -> Demote | None:
    """A dead manager goes once there are more voters than wanted: its substitute is among them."""
    if not scene.dead or len(scene.standing) + len(scene.dead) <= scene.wanted:
        return None
    node = scene.dead[0]
    silent_s = scene.now - scene.history.silent_since[_raft_id(node)]
    return Demote(node.id, f"it has not answered for {silent_s:.0f} s") if scene.can_spare(node) else None


def _replace_or_add(scene: _Scene) -> Promote | None:
    """One more, where fewer live managers vote than are wanted."""
    if len(scene.standing) >= scene.wanted:
        return None
    node = _best_worker(scene)
    if node is None:
        return None
    return Promote(node.id, f"{len(scene.standing)} of the {scene.wanted} managers that are wanted answer")


def _shrink(scene: _Scene) -> Demote | None:
    """One less: a silent one rather than a live one, from the most crowded zone, and never the leader."""
    if len(scene.standing) <= scene.wanted:
        return None
    zones = _zones(scene.standing)
    able = [node for node in scene.standing if not scene.leads(node) and scene.can_spare(node)]
    node = min(able, key=lambda n: _shrink_key(scene, zones, n), default=None)
    if node is None:
        return None
    return Demote(node.id, f"there are {len(scene.standing)} managers, and {scene.wanted} are wanted")


def _shrink_key(scene: _Scene, zones: Counter[str], node: Node) -> tuple[bool, int, bool, float, str]:
    """Among equals the one that became ready last goes."""
    is_active = node.spec.availability is Availability.ACTIVE
    return scene.is_heard(node), -zones[zone_of(node)], is_active, -node.status.changed_at, node.id


def _spread(scene: _Scene) -> Promote | None:
    """A manager for a zone that has two fewer than another: next `_shrink` takes one from the crowded zone."""
    is_quiet = scene.now - scene.history.quiet_since >= scene.timing.rebalance_s
    if not is_quiet or scene.dead or not all(scene.is_heard(node) for node in scene.standing):
        return None
    node = _best_worker(scene)
    if node is None:
        return None
    zones = _zones(scene.standing)
    crowded, here = max(zones.values()), zones[zone_of(node)]
    if crowded - here < 2:
        return None
    return Promote(node.id, f"zone {zone_of(node) or '(none)'} has {here} managers and another has {crowded}")


def _best_worker(scene: _Scene) -> Node | None:
    """In the zone with the fewest managers; then one that takes tasks, the one that is ready longest, the lowest id."""
    zones = _zones(scene.standing)
    able = [node for node in scene.view.nodes.values() if _may_be_promoted(node, scene.history)]
    return min(able, key=lambda n: _worker_key(zones, n), default=None)


def _worker_key(zones: Counter[str], node: Node) -> tuple[int, bool, float, str]:
    is_paused = node.spec.availability is not Availability.ACTIVE
    return zones[zone_of(node)], is_paused, node.status.changed_at, node.id


def _may_be_promoted(node: Node, history: History) -> bool:
    """A drained node is about to be taken away."""
    return (
        node.spec.role is NodeRole.WORKER
        and node.role is NodeRole.WORKER
        and node.status.state is NodeState.READY
        and node.spec.availability is not Availability.DRAIN
        and node.id not in history.failed_until
    )


def zone_of(node: Node) -> str:
    """The node's failure zone; nodes without the label share one."""
    return node.spec.labels.get(ZONE_LABEL, "")


def _zones(nodes: Sequence[Node]) -> Counter[str]:
    return Counter(zone_of(node) for node in nodes)


def _raft_id(node: Node) -> int:
    return node.manager_status.raft_id if node.manager_status is not None else 0


def _is_voter(members: Members, node: Node) -> bool:
    member = members.get(_raft_id(node))
    return member is not None and member.role is MemberRole.VOTER

"""Why a task waits, or why it is where it is: every node's verdict and score, counted, with what would help.

`why` looks at the state and changes nothing. A task that has a node already is judged as if it were placed now, without
itself. Bounded: at most `MAX_VERDICTS` nodes are told of, the best ones and the one that was chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from pyswarm_common.model import Task, TaskState
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.planner.schedule.board import first_refusal, sentence
from pyswarm_manager.planner.schedule.constraints import node_value
from pyswarm_manager.planner.schedule.group import Group, Rank, host_ports_of
from pyswarm_manager.planner.schedule.refusals import Refusal, name_of, refusals
from pyswarm_manager.planner.schedule.suggest import Suggestion, another_node, suggestions
from pyswarm_manager.planner.seat import Seat
from pyswarm_manager.store.tables import Tables

MAX_VERDICTS = 1_000


@dataclass(frozen=True, slots=True)
class Score:
    """What decides among the nodes that may take the task, in this order; lower is better but for the wish."""

    failures: int
    """Of the service on that node in the last minutes, if they are too many."""
    second_choice: bool
    """By a taint."""
    wish: int
    """Weights of affinities."""
    spread: tuple[int, ...]
    """Tasks of the service in the node's branch of each placement preference."""
    own_tasks: int
    tasks: int
    reserved: float
    """The larger share of cpu or memory."""


@dataclass(frozen=True, slots=True)
class Verdict:
    node_id: str
    hostname: str
    is_chosen: bool
    refusals: tuple[str, ...]
    score: Score

    @property
    def fits(self) -> bool:
        return not self.refusals


@dataclass(frozen=True, slots=True)
class Why:
    summary: str
    verdicts: tuple[Verdict, ...]
    """The chosen node, then those that fit, the best first, then the others, those with the fewest refusals first."""
    nodes: int
    """How many there are."""
    packs: bool
    suggestions: tuple[Suggestion, ...]
    one_more_node: str
    """What a node to be added would have to be; empty if there is a node."""


def why(tables: Tables, task: Task, now: float, limit: int = 100) -> Why | None:
    """None, if the task's service is gone."""
    service = tables.services.get(task.service_id)
    if service is None:
        return None
    ledger = Ledger.of(tables)
    if TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING:
        ledger.observe_task(task, replace(task, status=replace(task.status, state=TaskState.SHUTDOWN)))
    draft = Draft(tables, ledger, now, _no_randomness, _no_ids)
    group = Group(draft, service, task.spec, host_ports_of(task.ports or service.endpoint.ports))
    group.begin(draft)
    seats = [seat for seat in ledger.seats.values() if task.slot or seat.node.id == task.node_id]
    return _judged(task, group, seats, max(1, min(limit, MAX_VERDICTS)))


def _judged(task: Task, group: Group, seats: list[Seat], limit: int) -> Why:
    found = [(seat, refusals(seat, group)) for seat in seats]
    branches = _Branches(group, seats)
    is_waiting = task.status.state < TaskState.ASSIGNED and task.desired_state <= TaskState.RUNNING
    found.sort(key=lambda item: (item[0].node.id != task.node_id, len(item[1]), *_order(item[0], group, branches)))
    verdicts = tuple(_verdict(seat, kept, task, group, branches) for seat, kept in found[:limit])
    is_stuck = is_waiting and all(kept for _, kept in found)
    return Why(
        summary=_summary(task, group, seats),
        verdicts=verdicts,
        nodes=len(seats),
        packs=group.packs,
        suggestions=tuple(suggestions(kept for _, kept in found)) if is_stuck else (),
        one_more_node=another_node(group.demand) if is_stuck and task.slot and not _must_be_near(group) else "",
    )


def _summary(task: Task, group: Group, seats: list[Seat]) -> str:
    if task.desired_state > TaskState.RUNNING or task.status.state > TaskState.RUNNING:
        said = task.status.err or task.status.message
        return f"it is not to run any more: {said}" if said else "it is not to run any more"
    if task.status.state >= TaskState.ASSIGNED:
        return f"it was made because it was {task.cause}" if task.cause else ""
    counts: dict[str, int] = {}
    for seat in seats:
        words = first_refusal(seat, group.demand, group.refusal)
        counts[words] = counts.get(words, 0) + 1
    if "" in counts:
        return task.status.message or "it is about to get a node"
    return sentence(counts)


class _Branches:
    """Tasks of the service in each branch of the placement preferences."""

    def __init__(self, group: Group, seats: list[Seat]) -> None:
        self._labels = tuple(preference.spread_descriptor for preference in group.spec.placement.preferences)
        self._counts: dict[tuple[str, ...], int] = {}
        for seat in seats if self._labels else ():
            for branch in self._of(seat):
                self._counts[branch] = self._counts.get(branch, 0) + group.counts.get(seat.node.id, 0)

    def counts(self, seat: Seat) -> tuple[int, ...]:
        return tuple(self._counts[branch] for branch in self._of(seat))

    def _of(self, seat: Seat) -> list[tuple[str, ...]]:
        values = tuple(node_value(seat.node, label) or "" for label in self._labels)
        return [values[: depth + 1] for depth in range(len(values))]


def _order(seat: Seat, group: Group, branches: _Branches) -> tuple[tuple[int, ...], Rank, int]:
    return branches.counts(seat), group.rank(seat), seat.index


def _verdict(seat: Seat, kept: list[Refusal], task: Task, group: Group, branches: _Branches) -> Verdict:
    failures, second_choice, unwished, _, _ = group.rank(seat)
    score = Score(
        failures=failures,
        second_choice=second_choice,
        wish=-unwished,
        spread=branches.counts(seat),
        own_tasks=group.counts.get(seat.node.id, 0),
        tasks=seat.usage.active,
        reserved=seat.fullness(),
    )
    node = seat.node
    return Verdict(node.id, name_of(node), node.id == task.node_id, tuple(refusal.text for refusal in kept), score)


def _must_be_near(group: Group) -> bool:
    """Then a node on which nothing runs yet is of no use."""
    return any(not wish.anti and not wish.weight for wish in group.spec.placement.affinities)


def _no_randomness() -> float:
    raise AssertionError("an explanation draws no lots")


def _no_ids() -> str:
    raise AssertionError("an explanation makes nothing")

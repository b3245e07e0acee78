"""Rebalance: moves running tasks to nodes that came or came back, a few at a time, each started before the old stops.

Begins because somebody asked (`service rebalance` sets `rebalance_status`), or by itself for services that allow it.
Each move is a successor task in the slot of the one that leaves, bound to its new node and naming the old one
(`replaces`); the slot's own rules carry it out, so a new leader goes on with what is under way. At most the update's
`parallelism` are open at a time. Nothing moves while an update runs or a task of the service is on its way for another
reason. After a run it begins again by itself only when `COOLDOWN_S` have passed, so that a node that comes and goes
does not keep it busy.

Who acts next: `schedule` binds the successors; `slots` retires what was replaced.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from pyswarm_common.model import RebalanceState, RebalanceStatus, Service, ServiceMode, Task, TaskState
from pyswarm_manager.planner.candidate import Candidate
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.orchestrate.update import Slots
from pyswarm_manager.planner.orchestrate.work import Work
from pyswarm_manager.planner.schedule import balance
from pyswarm_manager.planner.schedule.balance import Move
from pyswarm_manager.planner.schedule.board import Board
from pyswarm_manager.planner.schedule.group import Group, host_ports_of

COOLDOWN_S = 60.0
RETRY_S = 5.0
"""When a move that was planned did not come about, for example for want of an address."""
CAUSE = "moved for balance"

_RUNNING = TaskState.RUNNING


def advance(work: Work, slots: Slots) -> None:
    """Begin, go on with, or end the rebalancing of a service that is not being updated."""
    service = work.draft.service(work.service.id)
    if service is None or service.spec.mode is not ServiceMode.REPLICATED:
        return
    status = service.rebalance_status or RebalanceStatus()
    if status.state is not RebalanceState.RUNNING and not _may_begin(work, status):
        return
    open_moves, is_quiet = _standing(work, slots)
    if not is_quiet:
        return
    planned = planned_moves(work.draft, service, slots)
    if not planned and not open_moves:
        if status.state is RebalanceState.RUNNING:
            _put(work, service, _ended(work, status))
        return
    if status.state is not RebalanceState.RUNNING or not status.message:
        _put(work, service, _begun(work, status, len(planned)))
    parallelism = work.config.parallelism
    room = len(planned) if parallelism == 0 else parallelism - open_moves
    for move in planned[: max(0, room)]:
        _begin(work, move)
    work.draft.wake(service.id, None, work.now + RETRY_S)


def planned_moves(draft: Draft, service: Service, slots: Slots) -> list[Move]:
    """All that is left to move."""
    group = Group(draft, service, service.spec.task, host_ports_of(service.endpoint.ports))
    group.begin(draft)
    return balance.moves(Board(draft.ledger), group, _movable(slots))


def _movable(slots: Slots) -> Iterator[Task]:
    """Of a slot that is moving already, the task that will stay."""
    for tasks in slots.values():
        wanted = [task for task in tasks if _is_live(task)]
        left = [task.replaces for task in wanted]
        yield from (task for task in wanted if task.id not in left)


def _is_live(task: Task) -> bool:
    return task.desired_state <= _RUNNING and TaskState.ASSIGNED <= task.status.state <= _RUNNING


def _may_begin(work: Work, status: RebalanceStatus) -> bool:
    if not work.spec.rebalance:
        return False
    again_at = status.completed_at + COOLDOWN_S
    if work.is_ahead(again_at, COOLDOWN_S):
        work.draft.wake(work.service.id, None, again_at)
        return False
    return True


def _standing(work: Work, slots: Slots) -> tuple[int, bool]:
    """How many moves are open, and whether nothing else of the service is on its way."""
    open_moves = 0
    for tasks in slots.values():
        wanted = [task for task in tasks if task.desired_state <= _RUNNING]
        if not wanted:
            continue
        ids = {task.id: None for task in wanted if task.status.state <= _RUNNING}
        movers = [task for task in wanted if task.replaces in ids and task.status.state <= _RUNNING]
        if movers:
            open_moves += 1
        elif len(wanted) > 1 or wanted[0].status.state is not _RUNNING or work.draft.is_leaving(wanted[0]):
            return open_moves, False
    return open_moves, not work.draft.has_candidates(work.service.id)


def _begin(work: Work, move: Move) -> None:
    work.create(move.task.slot, restart_times=move.task.restart_times)
    candidate: Candidate = work.draft.candidates[-1]
    candidate.node_id = move.node_id
    candidate.replaces = move.task.id
    candidate.cause = CAUSE
    candidate.is_optional = True


def _begun(work: Work, status: RebalanceStatus, count: int) -> RebalanceStatus:
    started_at = status.started_at if status.state is RebalanceState.RUNNING else work.now
    tasks = "1 task" if count == 1 else f"{count} tasks"
    return RebalanceStatus(
        state=RebalanceState.RUNNING, started_at=started_at or work.now, moves=count, message=f"{tasks} to move"
    )


def _ended(work: Work, status: RebalanceStatus) -> RebalanceStatus:
    return msgspec.structs.replace(
        status, state=RebalanceState.COMPLETED, completed_at=work.now, message="rebalance completed"
    )


def _put(work: Work, service: Service, status: RebalanceStatus) -> None:
    current = work.draft.service(service.id) or service
    work.draft.put_service(msgspec.structs.replace(current, rebalance_status=status))
    work.draft.explain(service.id, f"rebalance: {status.message}")

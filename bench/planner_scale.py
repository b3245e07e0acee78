"""How planning grows: many tasks on many nodes, a node's death, one change among many services.

    .venv/bin/python bench/planner_scale.py [--json] [--rounds 1] [case …]

In one process, with the real planner, encoding and apply, as a leader has them (without Raft and its disk). Told are
seconds by the clock and, since benchmarks share their machine, seconds of the processor; each is the best of the
rounds. "committed" is planning, encoding every change set and applying it. Nothing here is asserted anywhere.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.planner_speed import CORE, GIB, Cell, make_service
from pyswarm_common.model import (
    NodeState,
    NodeStatus,
    Placement,
    ResourceRequirements,
    Resources,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from pyswarm_manager.planner.dirty import Dirty
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.planner.plan import State, plan
from pyswarm_manager.planner.schedule.why import why
from pyswarm_manager.store.changes import Change, ChangeSet, Create, SetNodeStatus, SetTaskStatus, Update
from pyswarm_manager.store.encoding import encode_change_set, split_changes


@dataclass
class Timing:
    plan_s: float = 0.0
    plan_cpu_s: float = 0.0
    longest_cpu_s: float = 0.0
    """The longest single plan of them: how long the leader's loop is kept."""
    committed_s: float = 0.0
    committed_cpu_s: float = 0.0
    tasks: int = 0
    """Changed by the plans."""
    resident_mib: int = 0
    """Of the whole process, at the end."""


def measured(cell: Cell) -> Timing:
    """Plan and commit until nothing is left to do at once."""
    timing = Timing()
    gc.collect()
    while cell.dirty:
        _measure_step(cell, timing)
    timing.resident_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return timing


def _measure_step(cell: Cell, timing: Timing) -> None:
    dirty, cell.dirty = cell.dirty, Dirty()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    found = plan(State(cell.tables, cell.ledger), dirty, time.time(), cell.rng.random, cell.new_id)
    planned, planned_cpu = time.perf_counter(), time.process_time()
    for piece in split_changes(found.changes):
        cell.apply(encode_change_set(ChangeSet(tuple(piece), time.time())))
    cell.dirty.merge(found.unfinished)
    timing.plan_s += planned - begin
    timing.plan_cpu_s += planned_cpu - begin_cpu
    timing.longest_cpu_s = max(timing.longest_cpu_s, planned_cpu - begin_cpu)
    timing.committed_s += time.perf_counter() - begin
    timing.committed_cpu_s += time.process_time() - begin_cpu
    timing.tasks += len(found.changes)


def filled(nodes: int, services: int, replicas: int) -> Cell:
    """Everything runs, and nothing is left to plan."""
    cell = Cell(nodes)
    cell.commit([Create(make_service(number, replicas)) for number in range(services)])
    measured(cell)
    cell.commit([SetTaskStatus(task, TaskStatus(state=TaskState.RUNNING)) for task in cell.tables.tasks])
    measured(cell)
    return cell


def place(nodes: int, services: int, replicas: int) -> Timing:
    cell = Cell(nodes)
    cell.commit([Create(make_service(number, replicas)) for number in range(services)])
    return measured(cell)


def place_unlike(nodes: int, services: int) -> Timing:
    """Services that each ask for something else: no two share what was found for the other."""
    cell = Cell(nodes)
    changes: list[Change] = []
    for number in range(services):
        service = make_service(number, 1)
        reserved = Resources(memory_bytes=GIB // 8 + number, nano_cpus=CORE // 100)
        placement = Placement(constraints=(f"node.labels.x!={number % 7}",))
        task = TaskSpec(resources=ResourceRequirements(reservations=reserved), placement=placement)
        changes.append(Create(msgspec.structs.replace(service, spec=msgspec.structs.replace(service.spec, task=task))))
    cell.commit(changes)
    return measured(cell)


def lose_a_node(nodes: int, services: int, replicas: int) -> Timing:
    cell = filled(nodes, services, replicas)
    node = next(iter(cell.tables.nodes.values()))
    cell.commit([SetNodeStatus(node.id, NodeStatus(state=NodeState.DOWN, changed_at=time.time()))])
    return measured(cell)


def update_one(nodes: int, services: int, replicas: int = 10) -> Timing:
    """Another image for one service among many; to the plan that begins it."""
    cell = filled(nodes, services, replicas)
    service = cell.tables.services[make_service(1, 1).id]
    task = msgspec.structs.replace(service.spec.task, force_update=1)
    spec = msgspec.structs.replace(service.spec, task=task)
    cell.commit([Update(msgspec.structs.replace(service, spec=spec))])
    return measured(cell)


def begin_anew(nodes: int, services: int, replicas: int) -> Timing:
    """A new leader: its ledger, and a plan of everything that changes nothing."""
    cell = filled(nodes, services, replicas)
    gc.collect()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    cell.ledger = Ledger.of(cell.tables)
    cell.dirty = Dirty(everything=True)
    timing = measured(cell)
    timing.committed_s, timing.committed_cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
    return timing


def explain_one(nodes: int, services: int, replicas: int) -> Timing:
    """`task why` of a task that no node can take."""
    cell = filled(nodes, services, replicas)
    service = make_service(services + 1, 1)
    reserved = Resources(memory_bytes=GIB << 10)
    task = TaskSpec(resources=ResourceRequirements(reservations=reserved))
    cell.commit([Create(msgspec.structs.replace(service, spec=msgspec.structs.replace(service.spec, task=task)))])
    measured(cell)
    waiting = next(iter(cell.tables.unplaced.values()))
    timing = Timing()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    assert why(cell.tables, waiting, time.time()) is not None
    timing.plan_s, timing.plan_cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
    return timing


CASES: dict[str, tuple[str, Callable[[], Timing], str]] = {
    "10s": ("10,000 one-task services on 1,000 nodes", lambda: place(1_000, 10_000, 1), "plan 0.4"),
    "10u": ("the same, each asking for something else", lambda: place_unlike(1_000, 10_000), ""),
    "100k": ("one service of 100,000 on 1,000 nodes", lambda: place(1_000, 1, 100_000), "plan 2"),
    "100n": ("1,000 one-task services on 100,000 nodes", lambda: place(100_000, 1_000, 1), "plan 2"),
    "100t": ("100 services of 1,000 on 10,000 nodes", lambda: place(10_000, 100, 1_000), "committed 10"),
    "1m": ("1,000 services of 1,000 on 10,000 nodes", lambda: place(10_000, 1_000, 1_000), ""),
    "death": ("a node dies: 10,000 nodes, 100,000 tasks", lambda: lose_a_node(10_000, 100, 1_000), "committed 0.5"),
    "update1": ("one service of 10 updated, among 1,000 tasks", lambda: update_one(1_000, 100), "flat"),
    "update10": ("the same among 10,000 tasks", lambda: update_one(1_000, 1_000), "flat"),
    "update100": ("the same among 100,000 tasks", lambda: update_one(1_000, 10_000), "flat"),
    "leader": ("a new leader of 10,000 nodes, 100,000 tasks", lambda: begin_anew(10_000, 100, 1_000), ""),
    "why": ("task why: 10,000 nodes, 100,000 tasks", lambda: explain_one(10_000, 100, 1_000), ""),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all if none is given")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = {}
    for name in options.cases or CASES:
        title, measure, aim = CASES[name]
        best = _best(measure() for _ in range(options.rounds))
        report[title] = asdict(best) | {"aim": aim}
        if not options.json:
            print(
                f"{title:48} plan {best.plan_s:7.3f} s (cpu {best.plan_cpu_s:.3f}, longest {best.longest_cpu_s:.3f})  "
                f"committed {best.committed_s:7.3f} s (cpu {best.committed_cpu_s:.3f})  {best.tasks} changes  "
                f"{best.resident_mib} MiB  aim {aim or '-'}",
                flush=True,
            )
    if options.json:
        print(json.dumps(report, indent=2))


def _best(timings: Iterable[Timing]) -> Timing:
    return min(timings, key=lambda timing: timing.committed_cpu_s)


if __name__ == "__main__":
    main()

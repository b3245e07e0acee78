"""How long one plan takes: the figures of the performance table's "schedule" rows.

    .venv/bin/python bench/planner_speed.py [--json] [--rounds 3] [case …]

Measures the planner alone (`plan`, from dirty to changes), and beside it what encoding and applying its changes costs
each manager. Nothing here is asserted anywhere.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from random import Random

from pyswarm_common.ids import id_from_bits
from pyswarm_common.model import (
    Cluster,
    ContainerSpec,
    Network,
    NetworkAttachmentSpec,
    NetworkSpec,
    Node,
    NodeDescription,
    NodeState,
    NodeStatus,
    Resources,
    Service,
    ServiceSpec,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from pyswarm_manager.planner.dirty import Dirty
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.planner.plan import State, plan
from pyswarm_manager.store.apply import Applied, apply
from pyswarm_manager.store.changes import Change, ChangeSet, Create, SetTaskStatus, Update
from pyswarm_manager.store.encoding import decode_change_set, encode_change_set, split_changes
from pyswarm_manager.store.tables import Tables

CORE, GIB = 1_000_000_000, 1 << 30


@dataclass
class Timing:
    plan_s: float
    longest_s: float
    """The longest single plan of them: how long the leader's loop was kept."""
    encode_s: float
    apply_s: float
    pieces: int
    bytes: int
    unfinished: bool


class Cell:
    """Tables and a ledger, kept up as a leader keeps them."""

    def __init__(self, nodes: int) -> None:
        self.rng = Random(1)
        self.tables = Tables()
        self.ledger = Ledger()
        self.dirty = Dirty()
        self.commit([Create(Cluster(id="cluster"))])
        self.commit([Create(make_node(number)) for number in range(nodes)])
        self.dirty = Dirty()

    def commit(self, changes: list[Change]) -> None:
        for piece in split_changes(changes):
            self.apply(encode_change_set(ChangeSet(tuple(piece), time.time())))

    def apply(self, data: bytes) -> None:
        result = apply(self.tables, self.tables.index + 1, decode_change_set(data))
        assert isinstance(result, Applied), result
        self.ledger.observe_events(result.events)
        self.dirty.add_events(result.events)

    def new_id(self) -> str:
        return id_from_bits(self.rng.getrandbits(128))

    def timed_plan(self) -> Timing:
        """Plan and commit until nothing is left to do at once."""
        total = self._timed_plan()
        while total.unfinished:
            step = self._timed_plan()
            total = Timing(
                plan_s=total.plan_s + step.plan_s,
                longest_s=max(total.longest_s, step.longest_s),
                encode_s=total.encode_s + step.encode_s,
                apply_s=total.apply_s + step.apply_s,
                pieces=total.pieces + step.pieces,
                bytes=total.bytes + step.bytes,
                unfinished=step.unfinished,
            )
        return total

    def _timed_plan(self) -> Timing:
        dirty, self.dirty = self.dirty, Dirty()
        gc.collect()
        begin = time.perf_counter()
        found = plan(State(self.tables, self.ledger), dirty, time.time(), self.rng.random, self.new_id)
        planned = time.perf_counter()
        pieces = [encode_change_set(ChangeSet(tuple(p), time.time())) for p in split_changes(found.changes)]
        encoded = time.perf_counter()
        for piece in pieces:
            self.apply(piece)
        applied = time.perf_counter()
        self.dirty.merge(found.unfinished)
        return Timing(
            plan_s=planned - begin,
            longest_s=planned - begin,
            encode_s=encoded - planned,
            apply_s=applied - encoded,
            pieces=len(pieces),
            bytes=sum(map(len, pieces)),
            unfinished=bool(found.unfinished),
        )


def make_node(number: int) -> Node:
    return Node(
        id=f"node{number:021d}",
        description=NodeDescription(
            hostname=f"node{number}", resources=Resources(nano_cpus=64 * CORE, memory_bytes=256 * GIB)
        ),
        status=NodeStatus(state=NodeState.READY, address="10.9.0.1"),
    )


def make_service(number: int, replicas: int, network: str = "") -> Service:
    networks = (NetworkAttachmentSpec(target=network),) if network else ()
    task = TaskSpec(container=ContainerSpec(image="nginx:1", env=("A=1", "B=2")), networks=networks)
    return Service(id=f"service{number:018d}", spec=ServiceSpec(name=f"s{number}", replicas=replicas, task=task))


def one_service(nodes: int, replicas: int, *, overlay: bool = False) -> Timing:
    cell = Cell(nodes)
    if overlay:
        cell.commit(
            [Create(Network(id="net", spec=NetworkSpec(name="net", driver="overlay", subnets=("10.64.0.0/14",))))]
        )
        cell.timed_plan()
    cell.commit([Create(make_service(1, replicas, "net" if overlay else ""))])
    return cell.timed_plan()


def many_services(nodes: int, services: int) -> Timing:
    cell = Cell(nodes)
    cell.commit([Create(make_service(number, 1)) for number in range(services)])
    return cell.timed_plan()


def scale_by_one(nodes: int, replicas: int) -> Timing:
    """One more replica of a large, running service among many others."""
    cell = running_cell(nodes, replicas)
    service = cell.tables.services[make_service(1, 1).id]
    spec = ServiceSpec(name="s1", replicas=replicas + 1, task=service.spec.task)
    cell.commit([Update(Service(id=service.id, meta=service.meta, spec=spec))])
    return cell.timed_plan()


def one_task_fails(nodes: int, replicas: int) -> Timing:
    cell = running_cell(nodes, replicas)
    task = next(iter(cell.tables.tasks))
    cell.commit([SetTaskStatus(task, TaskStatus(state=TaskState.FAILED))])
    return cell.timed_plan()


def running_cell(nodes: int, replicas: int) -> Cell:
    cell = Cell(nodes)
    cell.commit([Create(make_service(number, replicas)) for number in range(1, 11)])
    cell.timed_plan()
    cell.commit([SetTaskStatus(task, TaskStatus(state=TaskState.RUNNING)) for task in cell.tables.tasks])
    cell.timed_plan()
    return cell


CASES: dict[str, tuple[str, Callable[[], Timing], str]] = {
    "1s": ("1,000 one-task services on 1,000 nodes", lambda: many_services(1_000, 1_000), "0.05"),
    "10s": ("10,000 one-task services on 1,000 nodes", lambda: many_services(1_000, 10_000), "0.4"),
    "10k": ("one service of 10,000 on 1,000 nodes", lambda: one_service(1_000, 10_000), "0.2"),
    "10kn": ("the same on an overlay network", lambda: one_service(1_000, 10_000, overlay=True), ""),
    "100k": ("one service of 100,000 on 1,000 nodes", lambda: one_service(1_000, 100_000), "2"),
    "100n": ("1,000 one-task services on 100,000 nodes", lambda: many_services(100_000, 1_000), "2"),
    "scale": ("10 services of 1,000 on 1,000 nodes: one scaled by 1", lambda: scale_by_one(1_000, 1_000), ""),
    "fail": ("the same: one task fails", lambda: one_task_fails(1_000, 1_000), ""),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all if none is given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = {}
    for name in options.cases or CASES:
        title, measure, aim = CASES[name]
        rounds = [measure() for _ in range(options.rounds)]
        best = min(rounds, key=lambda timing: timing.plan_s)
        report[title] = asdict(best) | {"median_plan_s": statistics.median(t.plan_s for t in rounds), "aim_s": aim}
        if not options.json:
            median = report[title]["median_plan_s"]
            print(
                f"{title:52} plan {best.plan_s:7.4f} s (median {median:.4f}, aim {aim or '-'}, "
                f"longest {best.longest_s:.4f})  encode {best.encode_s:.3f}  apply {best.apply_s:.3f} s  "
                f"{best.pieces} entries, {best.bytes >> 10} KiB"
            )
            sys.stdout.flush()
    if options.json:
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

"""The draft: what the running plan has decided so far, and the ledger with those decisions counted in.

The only mutable thing of a plan. Stages write into it; `changes` puts everything in an order in which every prefix is a
state to go on from, since a large plan is committed in several pieces: replacements are made before what they replace
is told to stop. `undo` takes back from the ledger what the draft counted.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pyswarm_common.ids import IdSource
from pyswarm_common.model import (
    AnyObject,
    Network,
    Node,
    PlacementStrategy,
    Service,
    Task,
    TaskState,
    TaskStatus,
)
from pyswarm_manager.planner.candidate import Candidate
from pyswarm_manager.planner.dirty import Dirty
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.store.changes import Change, Create, Delete, SetDesired, SetTaskStatus, Update
from pyswarm_manager.store.tables import Kind, SlotKey, Tables

Rng = Callable[[], float]
"""Uniform in [0, 1)."""

WakeKey = tuple[str, SlotKey | None]
"""What to look at again at some time: a slot of a service, or (None) the whole service."""


MAX_NEW_TASKS = 5_000
"""New tasks per plan. More are made by the plans after it, so that no plan keeps the leader's loop for long."""
MAX_REMOVALS = 3_000
"""About how many tasks a plan tells to stop because there are too many, for the same reason."""


class Draft:
    def __init__(
        self,
        tables: Tables,
        ledger: Ledger,
        now: float,
        rng: Rng,
        new_id: IdSource,
        is_told: Callable[[Task], bool] = lambda task: True,
    ) -> None:
        self._is_told = is_told
        self.awaited: dict[str, Task] = {}
        self.tables = tables
        self.ledger = ledger
        self.now = now
        self.rng = rng
        self.new_id = new_id
        self.candidates: list[Candidate] = []
        self.wakes: dict[WakeKey, float] = {}
        self.explanations: list[tuple[str, str]] = []
        self.refusals: dict[str, str] = {}
        """By network, why it can have no subnet or number: told to each task that waits for it."""
        self.unfinished = Dirty()
        cluster = tables.cluster
        strategy = cluster.spec.placement_strategy if cluster is not None else PlacementStrategy.DEFAULT
        self.packs_by_default = strategy is PlacementStrategy.BINPACK
        self.swaps: dict[str, Task] = {}
        """By the id of a waiting successor, the task in whose place on its node it is to be prepared."""
        self._networks: dict[str, Network] = {}
        self._nodes: dict[str, Node] = {}
        self._services: dict[str, Service] = {}
        self._desired: dict[str, TaskState] = {}
        self._statuses: dict[str, TaskStatus] = {}
        self._deleted: dict[str, None] = {}
        self._creates: list[Create] = []
        self._updates: list[Update] = []
        self._counted: list[tuple[AnyObject | None, AnyObject | None]] = []
        ledger.begin_plan()

    # ---- what the stages read

    def network(self, network_id: str) -> Network | None:
        return self._networks.get(network_id) or self.tables.networks.get(network_id)

    def service(self, service_id: str) -> Service | None:
        return self._services.get(service_id) or self.tables.services.get(service_id)

    def is_leaving(self, task: Task) -> bool:
        """Whether this plan ends or deletes the task."""
        return task.id in self._deleted or self._desired.get(task.id, TaskState.NEW) > TaskState.RUNNING

    def knows(self, task: Task) -> bool:
        """`is_told`, for a choice that waits for nothing."""
        return self._is_told(task)

    def is_told(self, task: Task) -> bool:
        """Whether every load balancer that needs the task knows it as it is; if not, the plan says what it awaits."""
        if self._is_told(task):
            return True
        self.awaited[task.id] = task
        return False

    def has_candidates(self, service_id: str) -> bool:
        """Whether this plan makes tasks of the service; asked while that service is looked at."""
        last = self.candidates[-1] if self.candidates else None
        return last is not None and last.service.id == service_id

    def tasks_left(self) -> int:
        """How many more tasks this plan should make."""
        return MAX_NEW_TASKS - len(self.candidates)

    def removals_left(self) -> int:
        """How many more slots this plan should give up."""
        return max(0, MAX_REMOVALS - len(self._desired) - len(self._deleted))

    # ---- what the stages decide

    def put_network(self, network: Network) -> None:
        self._count(self.network(network.id), network)
        self._networks[network.id] = network

    def put_node(self, node: Node) -> None:
        self._count(self._nodes.get(node.id) or self.tables.nodes.get(node.id), node)
        self._nodes[node.id] = node

    def put_service(self, service: Service) -> None:
        self._count(self.service(service.id), service)
        self._services[service.id] = service

    def desire(self, task: Task, state: TaskState) -> None:
        if state <= task.desired_state:
            return
        self._desired[task.id] = state
        if state > TaskState.RUNNING:
            self._count(task, msgspec.structs.replace(task, desired_state=state))

    def discount(self, task: Task) -> None:
        """The task will leave its node: place what this plan places as if it had, though it still uses resources."""
        self._count(task, msgspec.structs.replace(task, desired_state=TaskState.SHUTDOWN))

    def drop(self, candidate: Candidate) -> None:
        """Make nothing of it after all."""
        self.ledger.release(candidate.networks)

    def rewrite(self, task: Task) -> None:
        """Change the task. What it gives back by that stays counted during this plan, as what a deletion gives back."""
        self._updates.append(Update(task))

    def change(self, task: Task, changed: Task) -> None:
        """Change the task, what it uses from then on counted in."""
        self._count(task, changed)
        self._updates.append(Update(changed))

    def set_status(self, task: Task, status: TaskStatus) -> None:
        self._statuses[task.id] = status

    def delete(self, task: Task) -> None:
        """Its addresses stay counted during this plan: the deletion may be committed after what the plan creates."""
        self._deleted[task.id] = None

    def wake(self, service_id: str, key: SlotKey | None, at: float) -> None:
        known = self.wakes.get((service_id, key))
        if known is None or at < known:
            self.wakes[service_id, key] = at

    def explain(self, object_id: str, sentence: str) -> None:
        self.explanations.append((object_id, sentence))

    # ---- how it ends

    def finish(self, candidate: Candidate) -> None:
        """Turn the candidate into a task that is made or changed. What it uses is in the ledger already."""
        if candidate.task is None:
            task = self._make(candidate)
            self._creates.append(Create(task))
            self._counted.append((None, task))
        else:
            self._change(candidate, candidate.task)

    def changes(self) -> tuple[Change, ...]:
        networks = (Update(item) if item.meta.version else Create(item) for item in self._networks.values())
        deleted = self._deleted
        return (
            *networks,
            *(Update(item) for item in self._nodes.values()),
            *(Update(item) for item in self._services.values()),
            *self._creates,
            *self._updates,
            *(SetTaskStatus(*item) for item in self._statuses.items() if item[0] not in deleted),
            *(SetDesired(*item) for item in self._desired.items() if item[0] not in deleted),
            *(Delete(Kind.TASK, task_id) for task_id in deleted),
        )

    def undo(self) -> None:
        """Take out of the ledger what this draft put in: the plan is not committed yet, and may never be."""
        for old, new in reversed(self._counted):
            self.ledger.observe(new, old)
        self.ledger.end_plan()

    def _count(self, old: AnyObject | None, new: AnyObject | None) -> None:
        self.ledger.observe(old, new)
        self._counted.append((old, new))

    def _make(self, candidate: Candidate) -> Task:
        service = candidate.service
        return Task(
            id=self.new_id(),
            service_id=service.id,
            service_name=service.spec.name,
            slot=candidate.slot,
            node_id=candidate.node_id,
            spec=candidate.spec,
            spec_version=service.spec_version,
            desired_state=candidate.desired_state,
            status=candidate.status(self.now),
            networks=candidate.networks,
            ports=candidate.ports,
            restart_times=candidate.restart_times,
            failures_in_row=candidate.failures_in_row,
            job_iteration=candidate.job_iteration,
            start_at=candidate.start_at,
            generic_resources=candidate.generic_resources,
            replaces=candidate.replaces,
            cause=candidate.cause,
        )

    def _change(self, candidate: Candidate, task: Task) -> None:
        status = candidate.status(self.now)
        if not candidate.placed and candidate.networks is task.networks and candidate.ports == task.ports:
            if (status.state, status.message) != (task.status.state, task.status.message):
                self.set_status(task, status)
            return
        changed = msgspec.structs.replace(
            task,
            node_id=candidate.node_id,
            status=status,
            networks=candidate.networks,
            ports=candidate.ports,
            generic_resources=candidate.generic_resources,
        )
        self._updates.append(Update(changed))
        self._counted.append((task, changed))

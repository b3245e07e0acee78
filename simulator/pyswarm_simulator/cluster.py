"""The cluster of one run: its hosts, who runs where, and what is looked at after every event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from pyswarm_common.errors import FailedPrecondition, Forbidden
from pyswarm_common.model import (
    Cluster,
    ClusterSpec,
    GenericResource,
    ManagerStatus,
    Node,
    NodeDescription,
    NodeRole,
    NodeSpec,
    NodeState,
    NodeStatus,
)
from pyswarm_manager.bootstrap import Bootstrap
from pyswarm_manager.raft.core.raft import Raft
from pyswarm_manager.raft.core.types import LogLost, Role
from pyswarm_manager.raft.storage.port import StorageFailed, StorageFull
from pyswarm_manager.store.store import Store
from pyswarm_runtime.types import ContainerState
from pyswarm_runtime.usage import ContainerUsage
from pyswarm_simulator.checks.autoscaling import AutoscaleChecks
from pyswarm_simulator.checks.following import FollowingChecks
from pyswarm_simulator.checks.raft import RaftChecks
from pyswarm_simulator.checks.scheduling import SchedulingChecks, check_resources
from pyswarm_simulator.checks.slots import check_start
from pyswarm_simulator.checks.stores import StoreChecks
from pyswarm_simulator.checks.violation import Violation
from pyswarm_simulator.host import CLUSTER_ID, Host
from pyswarm_simulator.manager import TICK_S, ManagerProcess, RemovedFromCluster, Watcher
from pyswarm_simulator.network import Network, host_at
from pyswarm_simulator.profile import Profile
from pyswarm_simulator.raft_transport import Receiver
from pyswarm_simulator.switchboard import Switchboard
from pyswarm_simulator.world import EPOCH, ProcessLoop, World
from pyswarm_worker.core.materials import needed_ids
from pyswarm_worker.tasks import task_id_of

RESTART_S = 0.5
"""The daemon starts an ended manager again after about so long."""
FIRST_IMAGES = ("docker.io/library/app:1",)


_STARTED_AGAIN = (StorageFailed, StorageFull, LogLost, Forbidden, FailedPrecondition)
"""Ends of a manager that its daemon answers by starting it once more."""


class Watched:
    """A manager's store as Raft's state machine, every step of which is checked."""

    def __init__(self, cluster: SimCluster, manager: ManagerProcess, store: Store) -> None:
        self._cluster, self._manager, self._store = cluster, manager, store

    def apply(self, index: int, term: int, data: bytes) -> object:
        result = self._store.apply(index, term, data)
        cluster = self._cluster
        cluster.checked(partial(cluster.stores.applied, self._manager.host, self._store, index, data, result))
        return result

    def capture(self) -> Callable[[], bytes]:
        cluster = self._cluster
        cluster.checked(partial(cluster.stores.compare, self._manager.host, self._store, self._store.view.index))
        return self._store.capture()

    def restore(self, index: int, data: bytes) -> None:
        self._store.restore(index, data)
        self._cluster.note(f"restore {self._manager.host} {index}")


class SimCluster:
    """Made for one run, and run by `Simulation`."""

    def __init__(self, world: World, profile: Profile) -> None:
        self.world, self.profile = world, profile
        self.network = Network(world)
        self.board = Switchboard(self.network, self._bug)
        self.raft_checks = RaftChecks()
        self.stores = StoreChecks()
        self.following = FollowingChecks()
        scaling, scheduling = AutoscaleChecks(lambda: world.now), SchedulingChecks(self.stores.content)
        self.stores.others += [scaling.changed, self.following.changed, scheduling.changed]
        self.demands: dict[str, int] = {}
        """Memory that is used of a service in all, whatever the number of its tasks."""
        self.watcher: Watcher = self
        self.raft_options: Mapping[str, Any] = {
            "tick_s": TICK_S,
            "heartbeat_ticks": 2,
            "election_ticks": 6,
            "lease_ticks": 3,
            "promise_ticks": 4,
            "snapshot_entries": profile.snapshot_entries,
            "keep_entries": 10,
            "max_append_bytes": world.rng.choice((1, 2000, 100_000)),
        }
        self.hosts: dict[str, Host] = {}
        self.trace: list[str] = []
        self.keeps_trace = True
        self._cores: dict[ProcessLoop, Raft] = {}
        self.violation: Violation | None = None
        self.is_over = False
        world.after = self._after_callback

    # -- hosts ---------------------------------------------------------------------------------------------------------

    def add_host(self, images: Sequence[str] = FIRST_IMAGES) -> Host:
        """A new machine. Nothing runs on it yet."""
        host = Host(self, len(self.hosts) + 1, images)
        host.runtime.on_started = lambda state: self._container_started(host, state)
        host.runtime.on_stopping = self._container_stopping
        host.runtime.usage_of = self._usage_of
        if self.profile.orchestration:
            host.generic = tuple(GenericResource(kind="gpu", value=f"{host.name}-gpu{n}") for n in range(2))
        self.hosts[host.name] = host
        return host

    def node_of(self, host: Host, role: NodeRole) -> Node:
        """Its object, as joining makes it."""
        return Node(
            id=host.node_id,
            spec=NodeSpec(role=role),
            role=role,
            description=NodeDescription(hostname=host.name),
            status=NodeStatus(state=NodeState.UNKNOWN, changed_at=EPOCH),
        )

    def bootstrap_of(self, host: Host) -> Bootstrap:
        """What `init` leaves on the first host."""
        cluster = Cluster(id=CLUSTER_ID, spec=ClusterSpec(task_history_limit=1, heartbeat_period_s=1.0))
        membership = ManagerStatus(raft_id=host.raft_id, address=host.manager_address)
        return Bootstrap(cluster, replace(self.node_of(host, NodeRole.MANAGER), manager_status=membership))

    def managers(self) -> list[ManagerProcess]:
        """The managers' processes that live."""
        found = (host.manager for host in self.hosts.values())
        return [manager for manager in found if manager is not None and manager.loop.is_alive]

    def leader(self) -> ManagerProcess | None:
        """The manager that leads in the highest term."""
        leading = [m for m in self.managers() if m.raft is not None and m.raft.is_leader]
        return max(leading, key=lambda m: m.raft.term if m.raft is not None else 0, default=None)

    def manager_at(self, address: str) -> Receiver | None:
        host = self.hosts.get(host_at(address))
        manager = host.manager if host is not None else None
        return manager if manager is not None and manager.loop.is_alive else None

    # -- what processes tell -------------------------------------------------------------------------------------------

    def machine(self, manager: ManagerProcess, store: Store) -> Watched:
        self.raft_checks.began(manager.raft_id, manager.disk)
        manager.transport.sent = lambda message: self.checked(partial(self.raft_checks.sent, message))
        return Watched(self, manager, store)

    def opened(self, manager: ManagerProcess) -> None:
        assert manager.raft is not None
        core = self._cores[manager.loop] = manager.raft._loop.core
        self.checked(partial(self.raft_checks.opened, core))
        self.note(f"manager {manager.host} started, applied {manager.raft.applied_index}")

    def agent_opened(self, host: Host) -> None:
        self.note(f"agent {host.name} started")

    def process_ended(self, host: Host, what: str, error: BaseException | None) -> None:
        """Expected ends are the daemon's affair; any other is a bug."""
        errors = list(_leaves(error)) if error is not None else []
        self.note(f"{what} {host.name} ended: {errors!r}")
        if what == "manager" and any(isinstance(e, RemovedFromCluster) for e in errors):
            host.is_manager_removed = True
            return
        if what == "manager" and errors and all(isinstance(e, _STARTED_AGAIN) for e in errors):
            if any(isinstance(e, LogLost) for e in errors):
                host.lose_log()
            self.world.after_s(RESTART_S, lambda: self.restart_manager(host))
            return
        if self.violation is None:
            self.violation = Violation(f"the {what} on {host.name} failed: {errors!r}")
            self.violation.__cause__ = error

    def restart_manager(self, host: Host) -> None:
        """What the daemon does with a manager that ended."""
        is_running = host.manager is not None and host.manager.loop.is_alive
        if host.is_up and host.is_manager_set_up and not is_running:
            host.start_manager()

    def note(self, line: str) -> None:
        """One line of the trace."""
        self.trace.append(f"{self.world.now:.6f} {line}")

    def _bug(self, where: str, error: BaseException) -> None:
        if self.violation is None:
            self.violation = Violation(f"{where} failed: {error!r}")
            self.violation.__cause__ = error

    def checked(self, check: Callable[[], None]) -> None:
        """Look, where the product's code would catch what we raise."""
        try:
            check()
        except Violation as violation:
            self.violation = self.violation or violation
            raise

    # -- after every event ---------------------------------------------------------------------------------------------

    def _after_callback(self, loop: ProcessLoop) -> None:
        core = self._cores.get(loop)
        if core is not None:
            self.raft_checks.looked_at(core)
            self._note_role(loop, core)
        if loop.failures:
            self._look_at_failures(loop)
        if self.violation is not None:
            raise self.violation

    def _note_role(self, loop: ProcessLoop, core: Raft) -> None:
        soft = (core.state.role, core.state.term if core.state.role is Role.LEADER else 0)
        if loop.noted != soft:
            loop.noted = soft
            self.note(f"role {loop.name} {core.state.role.name} term {core.state.term}")

    def _look_at_failures(self, loop: ProcessLoop) -> None:
        failures, loop.failures = loop.failures, []
        for failure in failures:
            error = failure.get("exception")
            self.note(f"unhandled {loop.name} {failure.get('message')} {error!r}")
            if isinstance(error, Violation):
                raise error
            if isinstance(error, AssertionError | TypeError | KeyError | AttributeError | IndexError):
                raise Violation(f"unhandled in {loop.name}: {error!r}") from error

    def _container_started(self, host: Host, state: ContainerState) -> None:
        self.note(f"container {state.id} of {state.config.name} runs on {host.name}")
        running = {other.name: other.runtime.running() for other in self.hosts.values()}
        self.checked(partial(check_start, self.stores.content, host.name, state, running))
        self.checked(partial(check_resources, self.stores.content, host.name, state, running[host.name]))
        self.checked(partial(self._check_files, host, state))

    def _check_files(self, host: Host, state: ContainerState) -> None:
        task = self.stores.content.tasks.get(task_id_of(state))
        if host.is_up and task is not None and set(needed_ids(task)) != set(host.files.get(task.id, ())):
            raise Violation(f"files: {task.name} on {host.name} starts without its secrets and configs")

    def _usage_of(self, state: ContainerState) -> ContainerUsage:
        """What is asked of a service is shared by all containers of it that run."""
        task = self.stores.content.tasks.get(task_id_of(state))
        demand = self.demands.get(task.service_id, 0) if task is not None else 0
        if task is None or not demand:
            return ContainerUsage(0, 0)
        ids = (task_id_of(other) for host in self.hosts.values() for other in host.runtime.running())
        found = [other for task_id in ids if (other := self.stores.content.tasks.get(task_id)) is not None]
        return ContainerUsage(0, demand // max(1, sum(other.service_id == task.service_id for other in found)))

    def _container_stopping(self, state: ContainerState) -> None:
        hosts = [(h.name, h.node_id, h.overlay.sending()) for h in self.hosts.values() if h.is_up]
        self.checked(partial(self.stores.handover.check_stop, task_id_of(state), hosts))


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]

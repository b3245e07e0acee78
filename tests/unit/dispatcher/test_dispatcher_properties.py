"""Whatever happens in the store, whenever an agent is told: what it was told adds up to what it should have."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm.v1 import types_pb2
from pyswarm_common.model import (
    ContainerStatus,
    Endpoint,
    Network,
    NetworkAttachment,
    NetworkAttachmentSpec,
    NetworkSpec,
    Node,
    NodeDescription,
    PortConfig,
    Service,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
    VirtualIP,
)
from pyswarm_manager.dispatcher.core.assignments import Given, complete, increment
from pyswarm_manager.dispatcher.core.tables import NetworkTables
from pyswarm_manager.store.apply import Applied, apply
from pyswarm_manager.store.changes import Change, ChangeSet, Create, Delete, SetDesired, SetTaskStatus, Update
from pyswarm_manager.store.tables import Kind, Tables

NODES = ("n1", "n2", "n3")
NETWORKS = ("a", "b")
STATES = (TaskState.PREPARING, TaskState.RUNNING, TaskState.FAILED, TaskState.SHUTDOWN, TaskState.ORPHANED)


@dataclass
class Agent:
    """Does what it is told, and nothing else."""

    tasks: dict[str, types_pb2.Task] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    endpoints: dict[str, dict[str, pb.EndpointRecord]] = field(default_factory=dict)
    services: dict[str, dict[str, pb.ServiceRecord]] = field(default_factory=dict)
    ingress: pb.IngressTable = field(default_factory=pb.IngressTable)
    sequence: int = 0

    def hear(self, message: bytes) -> None:
        assignments = pb.ManagerMessage.FromString(message).assignments
        assert assignments.sequence == self.sequence + 1
        self.sequence += 1
        assert (assignments.type == pb.Assignments.TYPE_COMPLETE) == (self.sequence == 1)
        for task_id in assignments.remove_task_ids:
            del self.tasks[task_id]
        for task in assignments.update_tasks:
            self.tasks[task.id] = task
        for table in assignments.networks:
            self._hear_table(table)
        for network_id in assignments.remove_network_ids:
            del self.versions[network_id], self.endpoints[network_id], self.services[network_id]
        if assignments.HasField("ingress"):
            self.ingress = assignments.ingress

    def _hear_table(self, table: pb.NetworkTable) -> None:
        if table.complete:
            self.endpoints[table.network_id], self.services[table.network_id] = {}, {}
        else:
            assert self.versions[table.network_id] == table.from_version, "a gap"
        self.versions[table.network_id] = table.version
        endpoints, services = self.endpoints[table.network_id], self.services[table.network_id]
        endpoints.update({record.endpoint_id: record for record in table.endpoints})
        services.update({record.service_id: record for record in table.services})
        for endpoint_id in table.remove_endpoint_ids:
            endpoints.pop(endpoint_id, None)
        for service_id in table.remove_service_ids:
            services.pop(service_id, None)

    def knows(self) -> object:
        """Comparable, without what may differ: own reports in tasks, and versions."""
        tasks = {}
        for task_id, task in self.tasks.items():
            has_ended = TaskState(task.status.state).is_terminal
            tasks[task_id] = (task.desired_state, has_ended, [a.network_id for a in task.networks])
        ports = sorted((p.service_id, p.published_port) for p in self.ingress.ports)
        return tasks, self.endpoints, self.services, ports, self.ingress.network_id, list(self.ingress.node_addresses)


class Dispatching(RuleBasedStateMachine):
    """One agent, told at arbitrary moments, beside one that is told everything anew."""

    def __init__(self) -> None:
        super().__init__()
        self.view = Tables()
        self.count = 0
        self.touched: dict[str, None] = {}
        self.tables: NetworkTables | None = None

    @initialize()
    def start(self) -> None:
        self.commit(*(Create(Network(id=name, spec=NetworkSpec(name=name))) for name in NETWORKS))
        self.commit(*(Create(Node(id=name)) for name in NODES))
        self.commit(Create(Service(id="svc", spec=ServiceSpec(name="web"))))
        self.tables = NetworkTables(self.view)
        self.given, self.agent = Given("n1"), Agent()
        self.agent.hear(complete(self.given, self.view, self.tables))

    def commit(self, *changes: Change) -> None:
        result = apply(self.view, self.view.index + 1, ChangeSet(changes, 0.0))
        assert isinstance(result, Applied), result
        for event in result.events:
            if self.tables is not None:
                self.tables.apply(event, self.view.index)
            if event.kind is Kind.TASK:
                self.touched[event.object.id] = None

    @rule(on=st.sets(st.sampled_from(NETWORKS)), port=st.integers(0, 2))
    def put_service(self, on: set[str], port: int) -> None:
        networks = tuple(NetworkAttachmentSpec(target=name, aliases=(f"alias{port}",)) for name in sorted(on))
        vips = tuple(VirtualIP(network_id=name, address=f"10.0.0.{port}") for name in sorted(on))
        ports = (PortConfig(target_port=80, published_port=8080 + port),) if port else ()
        spec = ServiceSpec(name="web", task=TaskSpec(networks=networks))
        old = self.view.services["svc"]
        self.commit(Update(replace(old, spec=spec, endpoint=Endpoint(vips=vips, ports=ports))))

    @rule(node=st.sampled_from(NODES), on=st.sets(st.sampled_from(NETWORKS)))
    def create_task(self, node: str, on: set[str]) -> None:
        self.count += 1
        attachments = tuple(
            NetworkAttachment(network_id=name, addresses=(f"10.0.1.{self.count}/24",)) for name in sorted(on)
        )
        status = TaskStatus(state=TaskState.ASSIGNED)
        task = Task(id=f"t{self.count}", service_id="svc", slot=self.count, node_id=node, networks=attachments)
        self.commit(Create(replace(task, desired_state=TaskState.RUNNING, status=status)))

    @rule(data=st.data(), state=st.sampled_from(STATES), container_id=st.sampled_from(["", "c1"]))
    def report(self, data: st.DataObject, state: TaskState, container_id: str) -> None:
        if self.view.tasks:
            task_id = data.draw(st.sampled_from(sorted(self.view.tasks)))
            container = ContainerStatus(container_id=container_id)
            self.commit(SetTaskStatus(task_id, TaskStatus(state=state, container=container)))

    @rule(data=st.data())
    def stop_or_delete(self, data: st.DataObject) -> None:
        if self.view.tasks:
            task_id = data.draw(st.sampled_from(sorted(self.view.tasks)))
            is_stop = data.draw(st.booleans())
            self.commit(SetDesired(task_id, TaskState.SHUTDOWN) if is_stop else Delete(Kind.TASK, task_id))

    @rule(node=st.sampled_from(NODES), number=st.integers(1, 3))
    def move_node(self, node: str, number: int) -> None:
        old = self.view.nodes[node]
        description = NodeDescription(hostname=node, data_path_address=f"192.0.2.{number}")
        self.commit(Update(replace(old, description=description, ingress_addresses=(f"10.255.0.{number}/24",))))

    @rule()
    def create_ingress(self) -> None:
        if "ingress" not in self.view.networks:
            self.commit(Create(Network(id="ingress", spec=NetworkSpec(name="ingress", ingress=True))))

    @rule(resync=st.sets(st.sampled_from((*NETWORKS, "ingress"))))
    def tell(self, resync: set[str]) -> None:
        assert self.tables is not None
        message = increment(self.given, self.touched, frozenset(resync), self.view, self.tables)
        self.touched.clear()
        if message is not None:
            self.agent.hear(message)

    @invariant()
    def told_once_more_it_knows_everything(self) -> None:
        if self.tables is None:
            return
        self.tell(set())
        fresh = Agent()
        fresh.hear(complete(Given("n1"), self.view, NetworkTables(self.view)))
        assert self.agent.knows() == fresh.knows()


class DispatchingLazily(Dispatching):
    """The same, but the agent is told only now and then, so that many commits become one message."""

    @invariant()
    def told_once_more_it_knows_everything(self) -> None:
        if self.tables is not None and self.view.index % 5 == 0:
            super().told_once_more_it_knows_everything()


TestDispatching = Dispatching.TestCase
TestDispatching.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestDispatchingLazily = DispatchingLazily.TestCase
TestDispatchingLazily.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

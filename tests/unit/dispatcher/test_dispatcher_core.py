"""Assignments, tables, heartbeats and reports, as plain functions of a store's tables."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm.v1.types_pb2 import TASK_STATE_SHUTDOWN
from pyswarm_common.model import (
    ContainerSpec,
    ContainerStatus,
    Endpoint,
    FileReference,
    FileSpec,
    Network,
    NetworkAttachment,
    NetworkAttachmentSpec,
    NetworkSpec,
    Node,
    NodeDescription,
    NodeState,
    NodeStatus,
    PortConfig,
    Secret,
    Service,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
    VirtualIP,
)
from pyswarm_manager.dispatcher.core import heartbeats, records, reports
from pyswarm_manager.dispatcher.core.assignments import Given, complete, increment
from pyswarm_manager.dispatcher.core.tables import JOURNAL_MINIMUM, NetworkTables
from pyswarm_manager.store.apply import Applied, apply
from pyswarm_manager.store.changes import (
    Change,
    ChangeSet,
    Create,
    Delete,
    SetDesired,
    SetTaskStatus,
    Update,
    delete,
)
from pyswarm_manager.store.tables import Kind, Tables

SPEC = TaskSpec(
    container=ContainerSpec(image="busybox"), networks=(NetworkAttachmentSpec(target="net", aliases=("www",)),)
)


def task(task_id: str, node_id: str = "n1", slot: int = 1, state: TaskState = TaskState.ASSIGNED) -> Task:
    return Task(
        id=task_id,
        service_id="svc",
        service_name="web",
        slot=slot,
        node_id=node_id,
        spec=SPEC,
        desired_state=TaskState.RUNNING,
        status=TaskStatus(state=state),
        networks=(NetworkAttachment(network_id="net", addresses=(f"10.0.1.{slot}/24",), aliases=("www",)),),
    )


def node(node_id: str, address: str) -> Node:
    return Node(
        id=node_id,
        description=NodeDescription(hostname=node_id, data_path_address=address),
        status=NodeStatus(state=NodeState.READY),
        ingress_addresses=(f"10.255.0.{address[-1]}/24",),
    )


@dataclass
class Cluster:
    """Tables that change by change sets, and what the dispatcher makes of each change."""

    view: Tables = field(default_factory=Tables)
    tables: NetworkTables | None = None
    given: dict[str, Given] = field(default_factory=dict)
    touched: dict[str, None] = field(default_factory=dict)

    def commit(self, *changes: Change) -> None:
        result = apply(self.view, self.view.index + 1, ChangeSet(changes, 0.0))
        assert isinstance(result, Applied), result
        for event in result.events:
            if self.tables is not None:
                self.tables.apply(event, self.view.index)
            if event.kind is Kind.TASK:
                self.touched[event.object.id] = None

    def start(self, *node_ids: str) -> dict[str, pb.Assignments]:
        self.tables = NetworkTables(self.view)
        self.touched.clear()
        self.given = {node_id: Given(node_id) for node_id in node_ids}
        return {node_id: parse(complete(given, self.view, self.tables)) for node_id, given in self.given.items()}

    def news(self, node_id: str, *resync: str) -> pb.Assignments | None:
        assert self.tables is not None
        message = increment(self.given[node_id], self.touched, frozenset(resync), self.view, self.tables)
        return None if message is None else parse(message)

    def acknowledge(self, *node_ids: str) -> list[str]:
        """These nodes have programmed all there is; returns the tasks that waited for that."""
        assert self.tables is not None
        for node_id in node_ids:
            for network_id in ("net", "ingress"):
                self.tables.programmed.acknowledge(node_id, network_id, self.view.index)
        return [task.id for task in self.tables.take_told()]

    def status(self, task_id: str, state: TaskState) -> None:
        self.commit(SetTaskStatus(task_id, TaskStatus(state=state)))


def parse(message: bytes) -> pb.Assignments:
    return pb.ManagerMessage.FromString(message).assignments


@pytest.fixture
def cluster() -> Cluster:
    """Two nodes, an overlay network, the ingress network, and one service with a published port."""
    cluster = Cluster()
    cluster.commit(
        Create(Network(id="ingress", spec=NetworkSpec(name="ingress", ingress=True), subnets=("10.255.0.0/24",))),
        Create(Network(id="net", spec=NetworkSpec(name="net"), vni=4097, subnets=("10.0.1.0/24",))),
        Create(node("n1", "192.0.2.1")),
        Create(node("n2", "192.0.2.2")),
    )
    port = PortConfig(target_port=80, published_port=8080)
    service = Service(
        id="svc",
        spec=ServiceSpec(name="web", task=SPEC),
        endpoint=Endpoint(vips=(VirtualIP(network_id="net", address="10.0.1.250"),), ports=(port,)),
    )
    cluster.commit(Create(service), Create(task("t1", "n1", 1)), Create(task("t2", "n2", 2)))
    return cluster


def endpoints(table: pb.NetworkTable) -> dict[str, tuple[list[str], str, bool]]:
    return {e.endpoint_id: (list(e.addresses), e.node_address, e.ready) for e in table.endpoints}


def test_the_first_message_names_everything(cluster: Cluster) -> None:
    first = cluster.start("n1", "n2")["n1"]
    assert (first.type, first.sequence) == (pb.Assignments.TYPE_COMPLETE, 1)
    assert [t.id for t in first.update_tasks] == ["t1"]
    tables = {table.network_id: table for table in first.networks}
    assert set(tables) == {"net", "ingress"}
    assert all(table.complete for table in tables.values())
    assert tables["net"].network.vni == 4097
    assert endpoints(tables["net"]) == {
        "t1": (["10.0.1.1"], "192.0.2.1", False),
        "t2": (["10.0.1.2"], "192.0.2.2", False),
    }
    record = tables["net"].endpoints[0]
    assert (record.name, list(record.aliases), record.service_id) == ("web.1.t1", ["www"], "svc")
    assert [(s.name, list(s.vips), list(s.aliases)) for s in tables["net"].services] == [
        ("web", ["10.0.1.250"], ["www"])
    ]
    assert endpoints(tables["ingress"]) == {
        "n1": (["10.255.0.1"], "192.0.2.1", False),
        "n2": (["10.255.0.2"], "192.0.2.2", False),
    }
    assert [s.name for s in tables["ingress"].services] == ["web"]
    assert (first.ingress.network_id, list(first.ingress.node_addresses)) == ("ingress", ["10.255.0.1/24"])
    assert [(p.service_id, p.published_port, p.target_port) for p in first.ingress.ports] == [("svc", 8080, 80)]


def test_a_node_without_tasks_gets_the_ingress_only(cluster: Cluster) -> None:
    cluster.commit(Create(node("n3", "192.0.2.3")))
    first = cluster.start("n3")["n3"]
    assert [table.network_id for table in first.networks] == ["ingress"]
    assert len(first.ingress.ports) == 1
    assert not first.update_tasks


def test_nothing_new_is_no_message(cluster: Cluster) -> None:
    cluster.start("n1")
    assert cluster.news("n1") is None
    cluster.status("t1", TaskState.PREPARING)
    assert cluster.news("n1") is None, "an agent is not told its own reports"


def test_running_makes_a_backend_known_everywhere_by_a_delta(cluster: Cluster) -> None:
    cluster.start("n1", "n2")
    cluster.status("t1", TaskState.RUNNING)
    message = cluster.news("n2")
    assert message is not None
    (table,) = message.networks
    assert not table.complete
    assert table.version > table.from_version
    assert endpoints(table) == {"t1": (["10.0.1.1"], "192.0.2.1", True)}
    assert not message.update_tasks


def test_a_task_is_stopped_when_every_node_of_its_network_took_it_out_and_goes_when_it_has_ended(
    cluster: Cluster,
) -> None:
    cluster.status("t1", TaskState.RUNNING)
    cluster.start("n1", "n2")
    cluster.commit(SetDesired("t1", TaskState.SHUTDOWN))
    message = cluster.news("n1")
    assert message is not None
    assert not message.update_tasks, "it goes on while others may send it connections"
    assert endpoints(message.networks[0]) == {"t1": (["10.0.1.1"], "192.0.2.1", False)}
    assert cluster.acknowledge("n1", "n2") == ["t1"]

    message = cluster.news("n1")
    assert message is not None
    assert [(t.id, t.desired_state) for t in message.update_tasks] == [("t1", TASK_STATE_SHUTDOWN)]

    cluster.status("t1", TaskState.SHUTDOWN)
    message = cluster.news("n1")
    assert message is not None
    assert list(message.remove_task_ids) == ["t1"]
    assert list(message.remove_network_ids) == ["net"]
    assert not message.networks, "a network that goes needs no table"
    message = cluster.news("n2")
    assert message is not None
    assert list(message.networks[0].remove_endpoint_ids) == ["t1"]


ENDED = [TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED]


@pytest.mark.parametrize("state", ENDED)
def test_a_task_that_ended_stays_with_its_container_until_it_is_deleted(cluster: Cluster, state: TaskState) -> None:
    cluster.commit(Create(Secret(id="s1", spec=FileSpec(name="key"))))
    reference = FileReference(id="s1", name="key")
    spec = replace(SPEC, container=replace(SPEC.container, secrets=(reference,)))
    cluster.commit(Update(replace(cluster.view.tasks["t1"], spec=spec)))
    cluster.status("t1", TaskState.RUNNING)
    first = cluster.start("n1")["n1"]
    assert [secret.id for secret in first.update_secrets] == ["s1"]

    ended = TaskStatus(state=state, container=ContainerStatus(container_id="c1"))
    cluster.commit(SetTaskStatus("t1", ended))
    message = cluster.news("n1")
    assert message is not None
    assert [(t.id, TaskState(t.status.state)) for t in message.update_tasks] == [("t1", state)]
    assert not message.remove_task_ids
    assert not message.update_tasks[0].spec.container.image, "nothing is made from it any more"
    assert list(message.remove_network_ids) == ["net"], "it needs its networks no more"
    assert list(message.remove_file_ids) == ["s1"], "nor what is secret"
    assert cluster.news("n1") is None

    given = Given("n1")
    assert cluster.tables is not None
    anew = parse(complete(given, cluster.view, cluster.tables))
    assert [t.id for t in anew.update_tasks] == ["t1"], "the first message of another session names it as well"
    assert ([n.network_id for n in anew.networks], len(anew.update_secrets)) == (["ingress"], 0)

    cluster.commit(Delete(Kind.TASK, "t1"))
    message = cluster.news("n1")
    assert message is not None
    assert list(message.remove_task_ids) == ["t1"]


@pytest.mark.parametrize("state", [*ENDED, TaskState.REJECTED])
def test_a_task_that_left_no_container_goes_when_it_ends(cluster: Cluster, state: TaskState) -> None:
    cluster.start("n1")
    cluster.commit(SetTaskStatus("t1", TaskStatus(state=state, container=ContainerStatus(exit_code=1))))
    message = cluster.news("n1")
    assert message is not None
    assert list(message.remove_task_ids) == ["t1"]


def test_what_an_orphan_left_is_removed(cluster: Cluster) -> None:
    cluster.status("t1", TaskState.RUNNING)
    cluster.start("n1")
    container = ContainerStatus(container_id="c1")
    cluster.commit(SetTaskStatus("t1", TaskStatus(state=TaskState.ORPHANED, container=container)))
    message = cluster.news("n1")
    assert message is not None
    assert list(message.remove_task_ids) == ["t1"]


def test_a_task_that_vanishes_from_the_store_is_removed(cluster: Cluster) -> None:
    cluster.start("n1")
    cluster.commit(Delete(Kind.TASK, "t1"))
    message = cluster.news("n1")
    assert message is not None
    assert list(message.remove_task_ids) == ["t1"]


def test_a_new_task_brings_its_network(cluster: Cluster) -> None:
    cluster.commit(Create(node("n3", "192.0.2.3")))
    cluster.start("n3")
    cluster.commit(Create(task("t3", "n3", 3)))
    message = cluster.news("n3")
    assert message is not None
    assert (message.type, message.sequence) == (pb.Assignments.TYPE_INCREMENTAL, 2)
    (table,) = message.networks
    assert table.complete
    assert set(endpoints(table)) == {"t1", "t2", "t3"}


def test_deltas_add_up_to_the_complete_table(cluster: Cluster) -> None:
    cluster.start("n1", "n2")
    cluster.status("t2", TaskState.RUNNING)
    first = cluster.news("n1")
    cluster.commit(Create(task("t3", "n2", 3)), SetDesired("t2", TaskState.SHUTDOWN))
    cluster.status("t2", TaskState.SHUTDOWN)
    second = cluster.news("n1")
    assert first is not None
    assert second is not None
    assert second.networks[0].from_version == first.networks[0].version
    assert list(second.networks[0].remove_endpoint_ids) == ["t2"]
    again = cluster.news("n1", "net")
    assert again is not None
    assert again.networks[0].complete
    assert again.networks[0].version == second.networks[0].version
    assert set(endpoints(again.networks[0])) == {"t1", "t3"}


def test_a_delta_is_serialised_once_for_all_nodes(cluster: Cluster) -> None:
    cluster.start("n1", "n2")
    assert cluster.tables is not None
    table = cluster.tables.table("net")
    assert table is not None
    before = table.version
    cluster.status("t1", TaskState.RUNNING)
    assert table.since(before) is table.since(before)


def test_whoever_is_too_far_behind_gets_the_whole_table(cluster: Cluster) -> None:
    cluster.start("n1")
    for i in range(JOURNAL_MINIMUM + 1):
        cluster.commit(Create(task(f"x{i}", "n2", 100 + i)), Delete(Kind.TASK, f"x{i - 1}"))
    message = cluster.news("n1")
    assert message is not None
    assert message.networks[0].complete
    assert len(message.networks[0].endpoints) == 3


def test_a_node_that_moves_takes_its_endpoints_along(cluster: Cluster) -> None:
    cluster.start("n1")
    n2 = cluster.view.nodes["n2"]
    cluster.commit(Update(replace(n2, description=replace(n2.description, data_path_address="192.0.2.9"))))
    message = cluster.news("n1")
    assert message is not None
    moved = {table.network_id: endpoints(table) for table in message.networks}
    assert moved["net"] == {"t2": (["10.0.1.2"], "192.0.2.9", False)}
    assert moved["ingress"]["n2"][1] == "192.0.2.9"


def test_ports_and_services_come_and_go(cluster: Cluster) -> None:
    cluster.start("n1")
    for task_id in ("t1", "t2"):
        cluster.status(task_id, TaskState.SHUTDOWN)
    cluster.commit(Delete(Kind.TASK, "t1"), Delete(Kind.TASK, "t2"), delete(cluster.view.services["svc"]))
    message = cluster.news("n1")
    assert message is not None
    assert message.HasField("ingress")
    assert not message.ingress.ports
    (ingress,) = message.networks
    assert list(ingress.remove_service_ids) == ["svc"]


def test_the_network_of_the_host_has_no_table() -> None:
    networks = tuple(NetworkAttachmentSpec(target=target) for target in ("host", "net"))
    service = Service(id="s", spec=ServiceSpec(name="web", task=TaskSpec(networks=networks)))
    assert list(records.service_records(service, "ingress")) == ["net"]


def test_tables_start_the_same_as_they_grow(cluster: Cluster) -> None:
    """A new leader's tables hold what the old one's did, whatever happened before."""
    cluster.start("n1")
    cluster.status("t1", TaskState.RUNNING)
    cluster.commit(Create(task("t3", "n1", 3)), SetDesired("t2", TaskState.SHUTDOWN))
    cluster.commit(Create(Network(id="more", spec=NetworkSpec(name="more"))))
    fresh = NetworkTables(cluster.view)
    assert cluster.tables is not None
    for network_id in cluster.view.networks:
        grown_table, fresh_table = cluster.tables.table(network_id), fresh.table(network_id)
        assert grown_table is not None
        assert fresh_table is not None
        grown, new = (pb.NetworkTable.FromString(t.complete()) for t in (grown_table, fresh_table))
        assert endpoints(grown) == endpoints(new)
        assert {s.service_id for s in grown.services} == {s.service_id for s in new.services}


# ---------------------------------------------------------------- heartbeats


def test_silence_is_loss_after_three_periods() -> None:
    beats = heartbeats.Heartbeats(0.0, 1.0)
    beats.heard("a", 0.0)
    lost = [(now, node_id) for now in _ticks(0.25, 5.0) for node_id in beats.expired(now)]
    assert lost == [(3.0, "a")], "once, and then it is not expected any more"


def test_a_broken_session_has_its_own_grace_and_a_new_one_ends_it() -> None:
    beats = heartbeats.Heartbeats(0.0, 1.0)
    beats.heard("a", 0.0)
    beats.heard("b", 0.0)
    beats.suspect("a", 0.5)
    beats.suspect("b", 0.5)
    lost = []
    for now in _ticks(0.25, 10.0):
        if now >= 2.0:
            beats.heard("a", now)
        lost += beats.expired(now)
    assert lost == ["b"]


def test_a_leader_that_stood_still_blames_nobody() -> None:
    beats = heartbeats.Heartbeats(0.0, 1.0)
    beats.heard("a", 0.0)
    assert beats.expired(0.25) == []
    assert beats.expired(60.0) == []
    assert [now for now in _ticks(60.25, 65.0) if beats.expired(now)] == [62.5]


def test_the_period_grows_with_the_cluster() -> None:
    assert heartbeats.heartbeat_period_s(1.0, 10) == 1.0
    assert heartbeats.heartbeat_period_s(1.0, 5000) == 10.0


def _ticks(start: float, end: float) -> list[float]:
    return [start + i * heartbeats.CHECK_INTERVAL_S for i in range(int((end - start) / heartbeats.CHECK_INTERVAL_S))]


# ---------------------------------------------------------------- reports


@pytest.mark.parametrize(
    ("known", "node_id", "state", "accepted"),
    [
        (task("t", state=TaskState.ASSIGNED), "n1", TaskState.RUNNING, True),
        (task("t", state=TaskState.RUNNING), "n1", TaskState.FAILED, True),
        (None, "n1", TaskState.RUNNING, False),
        (task("t"), "n2", TaskState.RUNNING, False),  # another node's task
        (task("t", state=TaskState.RUNNING), "n1", TaskState.PREPARING, False),  # back
        (task("t", state=TaskState.SHUTDOWN), "n1", TaskState.FAILED, False),  # after the end
        (task("t"), "n1", TaskState.ASSIGNED, False),  # not an agent's to say
        (task("t"), "n1", TaskState.ORPHANED, False),
    ],
)
def test_which_statuses_count(known: Task | None, node_id: str, state: TaskState, accepted: bool) -> None:
    status = TaskStatus(state=state, timestamp=5.0)
    assert reports.accepted_status(known, node_id, status) == (status if accepted else None)


def test_long_texts_are_cut() -> None:
    status = reports.accepted_status(task("t"), "n1", TaskStatus(state=TaskState.FAILED, err="x" * 10_000))
    assert status is not None
    assert len(status.err) == reports.TEXT_LIMIT


def test_a_node_that_says_the_same_again_changes_nothing() -> None:
    known = replace(node("n1", "192.0.2.1"), status=NodeStatus(state=NodeState.READY, address="192.0.2.1"))
    assert reports.opened(known, known.description, "192.0.2.1", 9.0) is None
    back = replace(known, status=replace(known.status, state=NodeState.DOWN))
    change = reports.opened(back, known.description, "192.0.2.1", 9.0)
    assert change is not None
    assert (change.status.state, change.status.changed_at, change.description) == (NodeState.READY, 9.0, None)


def test_only_a_ready_node_becomes_suspect() -> None:
    ready = node("n1", "192.0.2.1")
    change = reports.broken(ready, 3.0)
    assert change is not None
    assert change.status.state is NodeState.SUSPECT
    assert reports.broken(replace(ready, status=NodeStatus(state=NodeState.DOWN)), 3.0) is None
    assert reports.lost(replace(ready, status=NodeStatus(state=NodeState.DOWN)), 3.0) is None

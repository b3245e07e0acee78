"""Apply: versions, unique names and ports, references, forward-only states, all or nothing."""

from __future__ import annotations

import msgspec
import pytest
from store_helpers import commit, refusal, service, task

from pyswarm_common.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfSequence,
    PyswarmError,
)
from pyswarm_common.model import (
    ContainerSpec,
    EndpointSpec,
    Network,
    NetworkAttachment,
    NetworkAttachmentSpec,
    NetworkSpec,
    Node,
    NodeDescription,
    NodeState,
    NodeStatus,
    PortConfig,
    PublishMode,
    Service,
    TaskSpec,
    TaskState,
    TaskStatus,
    UpdateState,
    UpdateStatus,
)
from pyswarm_manager.store.changes import (
    Change,
    Create,
    Delete,
    Event,
    SetDesired,
    SetNodeStatus,
    SetTaskStatus,
    Update,
    delete,
)
from pyswarm_manager.store.tables import Kind, Tables

replace = msgspec.structs.replace


@pytest.fixture
def tables() -> Tables:
    tables = Tables()
    commit(tables, Create(service("web")), now=10.0)
    commit(tables, Create(task(1, tables.services["id-web"])), now=20.0)
    return tables


def respec(tables: Tables, **spec: object) -> Service:
    web = tables.services["id-web"]
    return replace(web, spec=replace(web.spec, **spec))


def published(name: str, port: int, mode: PublishMode = PublishMode.INGRESS) -> Service:
    return service(
        name, endpoint=EndpointSpec(ports=(PortConfig(target_port=80, published_port=port, publish_mode=mode),))
    )


def test_meta_is_set_from_index_and_the_proposers_clock(tables: Tables) -> None:
    web = tables.services["id-web"]
    assert (web.meta.version, web.meta.created_at, web.meta.updated_at, web.spec_version) == (1, 10.0, 10.0, 1)
    commit(tables, Update(respec(tables, replicas=3)), now=30.0)
    web = tables.services["id-web"]
    assert (web.meta.version, web.meta.created_at, web.meta.updated_at, web.spec_version) == (3, 10.0, 30.0, 3)


def test_events_carry_the_object_before_and_after(tables: Tables) -> None:
    old = tables.services["id-web"]
    changed, history = commit(tables, Update(respec(tables, replicas=3)))
    assert changed == Event(old, tables.services["id-web"])
    assert history == Event(None, tables.service_revisions["id-web.2"])
    removed = tables.tasks["task1"]
    assert commit(tables, delete(removed)) == (Event(removed, None),)


REFUSED: list[tuple[str, type[PyswarmError], str]] = [
    ("create_twice", AlreadyExists, "service id-web already exists"),
    ("name_taken", AlreadyExists, "name conflicts with an existing object: service web already exists"),
    ("moved", OutOfSequence, "update out of sequence: service id-web is at version 1"),
    ("delete_moved", OutOfSequence, "update out of sequence"),
    ("unversioned", InvalidArgument, "does not say which version it read"),
    ("gone", NotFound, "service nobody not found"),
    ("task_of_nothing", NotFound, "service nobody not found"),
    ("network_missing", NotFound, "network net not found"),
    ("second_of_two_names", AlreadyExists, "service new already exists"),
]


def wrong(case: str, tables: Tables) -> list[Change]:
    web = tables.services["id-web"]
    other = replace(service("web"), id="other")
    changes: dict[str, list[Change]] = {
        "create_twice": [Create(web)],
        "name_taken": [Create(other)],
        "moved": [Update(replace(web, meta=replace(web.meta, version=7)))],
        "delete_moved": [Delete(Kind.SERVICE, "id-web", 9)],
        "unversioned": [Delete(Kind.SERVICE, "id-web")],
        "gone": [Update(replace(web, id="nobody"))],
        "task_of_nothing": [Create(replace(task(9, web), service_id="nobody"))],
        "network_missing": [Create(service("new", task=TaskSpec(networks=(NetworkAttachmentSpec(target="net"),))))],
        "second_of_two_names": [Create(service("new")), Create(replace(service("new"), id="newer"))],
    }
    return changes[case]


@pytest.mark.parametrize(("case", "error", "words"), REFUSED, ids=[case for case, _, _ in REFUSED])
def test_refused_whole(case: str, error: type[PyswarmError], words: str, tables: Tables) -> None:
    fine = Create(service("bystander"))
    found = refusal(tables, fine, *wrong(case, tables))
    assert type(found) is error
    assert words in str(found)
    assert "bystander" not in str(tables.services)


def test_a_name_is_free_again_within_the_same_change_set(tables: Tables) -> None:
    commit(tables, delete(tables.services["id-web"]), Create(replace(service("web"), id="second")))
    assert tables.ids_by_name[Kind.SERVICE, "web"] == "second"


def test_ingress_ports_are_unique_host_ports_are_not(tables: Tables) -> None:
    commit(tables, Create(published("a", 8080)))
    error = refusal(tables, Create(published("b", 8080)))
    assert str(error) == "port '8080' is already in use by service 'a' as an ingress port"
    commit(tables, Create(published("c", 8080, PublishMode.HOST)))
    commit(tables, delete(tables.services["id-a"]), Create(published("b", 8080)))


def test_a_network_in_use_is_not_deleted(tables: Tables) -> None:
    commit(tables, Create(Network(id="net", spec=NetworkSpec(name="front"))))
    attached = service("api", task=TaskSpec(networks=(NetworkAttachmentSpec(target="net"),)))
    commit(tables, Create(attached))
    error = refusal(tables, delete(tables.networks["net"]))
    assert isinstance(error, FailedPrecondition)
    assert str(error) == "network front is in use by service api"
    # Not while tasks of the removed service still run on it, either.
    attachment = NetworkAttachment(network_id="net", addresses=("10.0.0.2/24",))
    commit(tables, Create(task(2, tables.services["id-api"], networks=(attachment,))))
    commit(tables, delete(tables.services["id-api"]))
    assert "in use by task api.2" in str(refusal(tables, delete(tables.networks["net"])))
    commit(tables, SetTaskStatus("task2", TaskStatus(state=TaskState.SHUTDOWN)))
    commit(tables, delete(tables.networks["net"]))


def test_a_new_spec_keeps_the_old_one_and_ends_its_update(tables: Tables) -> None:
    web = tables.services["id-web"]
    commit(tables, Update(replace(web, update_status=UpdateStatus(state=UpdateState.PAUSED))))
    commit(tables, Update(respec(tables, replicas=3)))
    web = tables.services["id-web"]
    assert web.update_status is None
    assert web.previous_spec is not None
    assert web.previous_spec.replicas is None


def test_what_is_not_a_new_spec_leaves_its_version(tables: Tables) -> None:
    web = tables.services["id-web"]
    commit(tables, Update(replace(web, update_status=UpdateStatus(state=UpdateState.UPDATING))))
    web = tables.services["id-web"]
    assert (web.meta.version, web.spec_version, web.previous_spec) == (3, 1, None)


def test_a_rollback_says_what_its_update_status_is(tables: Tables) -> None:
    commit(tables, Update(respec(tables, replicas=3)))
    web = tables.services["id-web"]
    assert web.previous_spec is not None
    started = UpdateStatus(state=UpdateState.ROLLBACK_STARTED)
    commit(tables, Update(replace(web, spec=web.previous_spec, previous_spec=None, update_status=started)))
    web = tables.services["id-web"]
    assert (web.spec.replicas, web.previous_spec, web.update_status) == (None, None, started)


def status(state: TaskState, message: str = "") -> TaskStatus:
    return TaskStatus(state=state, message=message)


def test_task_states_only_move_forward(tables: Tables) -> None:
    commit(tables, SetTaskStatus("task1", status(TaskState.RUNNING)), now=30.0)
    assert commit(tables, SetTaskStatus("task1", status(TaskState.PREPARING))) == ()
    assert commit(tables, SetTaskStatus("task1", status(TaskState.RUNNING))) == ()
    commit(tables, SetTaskStatus("task1", status(TaskState.RUNNING, "healthy")), now=35.0)
    commit(tables, SetTaskStatus("task1", status(TaskState.FAILED)), now=40.0)
    assert commit(tables, SetTaskStatus("task1", status(TaskState.ORPHANED))) == ()
    last = tables.tasks["task1"]
    assert (last.status.state, last.running_at, last.ended_at) == (TaskState.FAILED, 30.0, 40.0)


def test_desired_states_only_rise(tables: Tables) -> None:
    commit(tables, SetDesired("task1", TaskState.SHUTDOWN))
    assert commit(tables, SetDesired("task1", TaskState.RUNNING)) == ()
    commit(tables, SetDesired("task1", TaskState.REMOVE))
    assert tables.tasks["task1"].desired_state is TaskState.REMOVE


def test_what_comes_for_a_task_that_is_gone_is_passed_over(tables: Tables) -> None:
    changes = (
        SetTaskStatus("ghost", status(TaskState.RUNNING)),
        SetDesired("ghost", TaskState.SHUTDOWN),
        SetNodeStatus("ghost", NodeStatus(state=NodeState.DOWN)),
        Delete(Kind.TASK, "ghost"),
    )
    assert commit(tables, *changes) == ()


def test_node_status_needs_no_version_and_leaves_what_users_wrote(tables: Tables) -> None:
    commit(tables, Create(Node(id="n1")))
    description = NodeDescription(hostname="alpha")
    ready = NodeStatus(state=NodeState.READY)
    commit(tables, SetNodeStatus("n1", ready, description))
    assert commit(tables, SetNodeStatus("n1", ready)) == ()
    assert (tables.nodes["n1"].description, tables.nodes["n1"].status) == (description, ready)


def test_only_a_ready_node_becomes_suspect(tables: Tables) -> None:
    """The session of a node that leaves may break while its leaving is committed."""
    suspect = SetNodeStatus("n1", NodeStatus(state=NodeState.SUSPECT))
    commit(tables, Create(Node(id="n1", status=NodeStatus(state=NodeState.DOWN, message="left the swarm"))))
    assert commit(tables, suspect) == ()
    assert tables.nodes["n1"].status.message == "left the swarm"
    commit(tables, SetNodeStatus("n1", NodeStatus(state=NodeState.READY)))
    commit(tables, suspect)
    assert tables.nodes["n1"].status.state is NodeState.SUSPECT


def test_tasks_of_one_service_share_one_spec(tables: Tables) -> None:
    web = tables.services["id-web"]
    commit(tables, *(Create(task(number, web)) for number in range(2, 50)))
    commit(tables, Create(task(50, web)))
    spec = tables.services["id-web"].spec.task
    assert all(task.spec is spec for task in tables.tasks.values())
    # A change of the service that tasks do not see leaves the object as it is.
    commit(tables, Update(respec(tables, labels={"a": "b"})))
    assert tables.services["id-web"].spec.task is spec
    # After another spec and back again, it is the old object.
    commit(tables, Update(respec(tables, task=TaskSpec(container=ContainerSpec(image="other")))))
    web = tables.services["id-web"]
    assert web.previous_spec is not None
    commit(tables, Update(replace(web, spec=web.previous_spec)))
    assert tables.services["id-web"].spec.task is spec


def test_indexes_follow(tables: Tables) -> None:
    web = tables.services["id-web"]
    assert set(tables.unplaced) == {"task1"}
    waiting = tables.tasks["task1"]
    commit(tables, Update(replace(waiting, node_id="n1", status=status(TaskState.ASSIGNED))))
    commit(tables, Create(replace(task(2, web), slot=1)))
    assert [t.id for t in tables.slots["id-web"][1]] == ["task1", "task2"]
    assert [t.id for t in tables.tasks_on("n1")] == ["task1"]
    assert set(tables.unplaced) == {"task2"}
    commit(tables, Delete(Kind.TASK, "task1"), Delete(Kind.TASK, "task2"))
    assert (tables.slots, tables.node_tasks, tables.unplaced) == ({}, {}, {})

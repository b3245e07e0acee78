"""What `node drain --wait` shows, and what nodes have left, in words."""

from __future__ import annotations

import pytest

from pyswarm.v1 import control_pb2, types_pb2
from pyswarm_cli.nodes import check_drain_flags
from pyswarm_cli.service.progress import Outcome
from pyswarm_cli.views import node_resources
from pyswarm_cli.views.draining import Draining, reasons
from pyswarm_cli.views.nodes import manager_status
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import (
    Availability,
    Node,
    NodeDescription,
    NodeSpec,
    NodeState,
    NodeStatus,
    Task,
    TaskState,
    TaskStatus,
)


def node(deadline_s: float = 0.0, **status: object) -> Node:
    return Node(
        id="n5id",
        description=NodeDescription(hostname="n5"),
        spec=NodeSpec(availability=Availability.DRAIN, drain_deadline_s=deadline_s),
        status=NodeStatus(**status),  # type: ignore[arg-type]
        drain_started_at=100.0,
    )


def task(slot: int, state: TaskState, wanted: TaskState = TaskState.RUNNING, **fields: object) -> Task:
    status = TaskStatus(state=state, message="no suitable node" if state is TaskState.PENDING else "")
    return Task(
        id=f"t{slot}{state.name}",
        service_name="web",
        slot=slot,
        node_id="" if state is TaskState.PENDING else "n5id",
        status=status,
        desired_state=wanted,
        **fields,  # type: ignore[arg-type]
    )


def test_tasks_leave_one_by_one() -> None:
    draining = Draining(node())
    tasks = [task(1, TaskState.RUNNING), task(2, TaskState.RUNNING, TaskState.SHUTDOWN), task(3, TaskState.FAILED)]
    draining.read(draining.node, tasks)
    picture = draining.look(0.0)
    assert picture.overall == "overall progress: 0 out of 2 tasks have left n5"
    assert [(line.label, line.text) for line in picture.lines] == [
        ("web.1", "waits for its turn"),
        ("web.2", "stopping"),
    ]
    draining.take(task(2, TaskState.SHUTDOWN, TaskState.SHUTDOWN), is_removed=False)
    draining.tasks.pop(tasks[1].id)
    assert draining.look(0.0).overall == "overall progress: 1 out of 2 tasks have left n5"
    draining.take(tasks[0], is_removed=True)
    assert (draining.look(0.0).outcome, draining.look(0.0).verify) == (Outcome.CONVERGED, "drain: n5 is empty")


def test_what_holds_a_task_and_how_long_it_may() -> None:
    draining = Draining(node(deadline_s=60.0))
    draining.read(draining.node, [task(1, TaskState.RUNNING)])
    draining.reasons = reasons([task(1, TaskState.PENDING), task(2, TaskState.READY)])
    picture = draining.look(110.4)
    assert picture.lines[0].text == "waits for its successor: no suitable node"
    assert picture.verify == "drain: what is left is stopped in 50 seconds"
    assert draining.reasons["web.2"] == "it is ready"


def test_a_drain_that_was_taken_back_fails_the_wait() -> None:
    draining = Draining(node())
    draining.read(Node(id="n5id", description=NodeDescription(hostname="n5")), [task(1, TaskState.RUNNING)])
    picture = draining.look(0.0)
    assert (picture.outcome, picture.message) == (Outcome.FAILED, "n5 is drained no more: 1 task stays there")


@pytest.mark.parametrize(("state", "left"), [(NodeState.DOWN, 1), (NodeState.READY, 2)])
def test_of_a_node_that_is_down_nobody_waits_for_the_end_of_a_task(state: NodeState, left: int) -> None:
    draining = Draining(node(state=state))
    draining.read(draining.node, [task(1, TaskState.RUNNING), task(2, TaskState.RUNNING, TaskState.SHUTDOWN)])
    assert len(draining.left()) == left


@pytest.mark.parametrize(
    ("availability", "deadline_s", "wait"), [("active", 5.0, False), (None, None, True), ("drain", 0.0, False)]
)
def test_flags_that_do_not_go_together(availability: str | None, deadline_s: float | None, wait: bool) -> None:
    with pytest.raises(InvalidArgument):
        check_drain_flags(availability, deadline_s, wait=wait)


def test_resources_in_words_and_in_docker_s_json() -> None:
    message = control_pb2.NodeResources(tasks=3)
    message.total.nano_cpus, message.reserved.nano_cpus = 4_000_000_000, 1_500_000_000
    message.total.memory_bytes, message.reserved.memory_bytes = 8 << 30, 512 << 20
    message.total.generic.add(kind="gpu", value="a")
    message.total.generic.add(kind="gpu", value="b")
    message.total.generic.add(kind="ssd", count=8)
    message.free.generic.add(kind="gpu", value="b")
    message.free.generic.add(kind="ssd", count=3)
    assert node_resources.cells(message) == {
        "Tasks": "3",
        "CPUs": "1.5 / 4",
        "Memory": "512MiB / 8GiB",
        "Pids": "-",
        "Generic": "gpu 1 of 2 free, ssd 3 of 8 free",
    }
    assert node_resources.inspected(message)["Free"] == {
        "GenericResources": [
            {"NamedResourceSpec": {"Kind": "gpu", "Value": "b"}},
            {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}},
        ]
    }


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ({"leader": True, "reachable": True}, "Leader"),
        ({"reachable": True}, "Reachable"),
        ({"reachable": True, "learner": True}, "Learner"),
        ({"learner": True}, "Unreachable"),
    ],
)
def test_a_manager_that_has_no_vote_yet_is_told_apart(status: dict[str, bool], shown: str) -> None:
    node = types_pb2.Node(id="n", manager_status=types_pb2.ManagerStatus(raft_id=1, **status))
    assert manager_status(node) == shown

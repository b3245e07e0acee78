"""When a stopped container is a violation: whom the cluster could tell, and whom it could not."""

from __future__ import annotations

import pytest

from pyswarm_common.model import Node, NodeState, NodeStatus, Service, ServiceSpec, Task, TaskState, TaskStatus
from pyswarm_manager.store.changes import Event
from pyswarm_overlay.types import EndpointRecord, NetworkTable
from pyswarm_simulator.checks.handover import HandoverChecks
from pyswarm_simulator.checks.violation import Violation


def node(name: str, state: NodeState = NodeState.READY) -> Node:
    return Node(id=name, status=NodeStatus(state=state))


def task(desired: TaskState) -> Task:
    status = TaskStatus(state=TaskState.RUNNING)
    return Task(id="t1", service_id="s1", node_id="n1", status=status, desired_state=desired)


SERVICE = Service(id="s1", spec=ServiceSpec(name="web"))
BACKEND = EndpointRecord(endpoint_id="t1", name="web.1.t1", node_address="192.0.2.1", ready=True)
TABLE = NetworkTable(network_id="net", name="net", vni=1, subnets=(), endpoints=(BACKEND,))


def checks_after(*steps: Node | Task) -> HandoverChecks:
    """What is committed one after the other, after a service with a task on n1 and another node n2."""
    checks = HandoverChecks()
    for index, item in enumerate((SERVICE, node("n1"), node("n2"), task(TaskState.RUNNING), *steps), 1):
        checks.changed(index, (Event(None, item),))
    return checks


def test_a_node_that_could_be_told_and_still_sends_is_a_violation() -> None:
    with pytest.raises(Violation, match="n2 still sends it connections"):
        checks_after(task(TaskState.SHUTDOWN)).check_stop("t1", [("n2", "n2", [TABLE])])


@pytest.mark.parametrize(
    "steps",
    [
        (task(TaskState.SHUTDOWN), node("n2", NodeState.DOWN)),
        (task(TaskState.SHUTDOWN), node("n2", NodeState.DOWN), node("n2")),
        (node("n2", NodeState.DOWN), task(TaskState.SHUTDOWN), node("n2")),
    ],
    ids=["down", "down and back", "back since"],
)
def test_a_node_that_was_lost_since_the_task_was_given_up_is_excused(steps: tuple[Node | Task, ...]) -> None:
    checks_after(*steps).check_stop("t1", [("n2", "n2", [TABLE])])


def test_a_node_that_was_back_before_is_not() -> None:
    steps = (node("n2", NodeState.DOWN), node("n2"), task(TaskState.SHUTDOWN))
    with pytest.raises(Violation):
        checks_after(*steps).check_stop("t1", [("n2", "n2", [TABLE])])

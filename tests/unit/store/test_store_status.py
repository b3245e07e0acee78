"""What of an agent's status batch is committed."""

from __future__ import annotations

import pytest
from store_helpers import commit, service, task

from pyswarm_common.errors import InvalidArgument, NotFound
from pyswarm_common.model import Node, NodeDescription, TaskState, TaskStatus
from pyswarm_manager.store.changes import Create, SetTaskStatus
from pyswarm_manager.store.lookup import find_node, find_service, find_task
from pyswarm_manager.store.status import status_changes
from pyswarm_manager.store.tables import Tables


def status(state: TaskState, message: str = "") -> TaskStatus:
    return TaskStatus(state=state, message=message)


@pytest.fixture
def tables() -> Tables:
    tables = Tables()
    web = service("web")
    commit(tables, Create(web))
    for number, node in ((1, "n1"), (2, "n1"), (3, "n2")):
        commit(tables, Create(task(number, web, node_id=node, status=status(TaskState.ASSIGNED))))
    return tables


def test_the_last_status_of_each_task_counts(tables: Tables) -> None:
    batch = status_changes(
        tables,
        "n1",
        [
            ("task1", status(TaskState.ACCEPTED)),
            ("task2", status(TaskState.ACCEPTED)),
            ("task1", status(TaskState.PREPARING)),
        ],
    )
    assert batch.changes == (
        SetTaskStatus("task1", status(TaskState.PREPARING)),
        SetTaskStatus("task2", status(TaskState.ACCEPTED)),
    )
    assert batch.refused == ()


def test_old_news_are_dropped(tables: Tables) -> None:
    commit(tables, SetTaskStatus("task1", status(TaskState.RUNNING)))
    commit(tables, SetTaskStatus("task2", status(TaskState.FAILED)))
    batch = status_changes(
        tables,
        "n1",
        [
            ("task1", status(TaskState.PREPARING)),
            ("task1", status(TaskState.RUNNING)),
            ("task2", status(TaskState.SHUTDOWN)),
            ("ghost", status(TaskState.RUNNING)),
        ],
    )
    assert (batch.changes, batch.refused) == ((), ())


def test_nothing_follows_an_end_within_a_batch(tables: Tables) -> None:
    batch = status_changes(tables, "n1", [("task1", status(TaskState.COMPLETE)), ("task1", status(TaskState.FAILED))])
    assert batch.changes == (SetTaskStatus("task1", status(TaskState.COMPLETE)),)


@pytest.mark.parametrize("state", [TaskState.PENDING, TaskState.ASSIGNED, TaskState.REMOVE, TaskState.ORPHANED])
def test_states_that_are_not_an_agents_are_refused(tables: Tables, state: TaskState) -> None:
    assert status_changes(tables, "n1", [("task1", status(state))]).refused == ("task1",)


def test_a_task_of_another_node_is_refused(tables: Tables) -> None:
    batch = status_changes(tables, "n1", [("task3", status(TaskState.RUNNING)), ("task1", status(TaskState.RUNNING))])
    assert batch.refused == ("task3",)
    assert [change.task_id for change in batch.changes] == ["task1"]


def test_objects_are_found_by_id_name_or_the_beginning_of_the_id(tables: Tables) -> None:
    commit(tables, Create(Node(id="abc1", description=NodeDescription(hostname="alpha"))), Create(Node(id="abd2")))
    assert find_service(tables, "web").id == "id-web"
    assert find_service(tables, "id-w").id == "id-web"
    assert find_task(tables, "web.2").id == "task2"
    assert find_node(tables, "alpha").id == find_node(tables, "abc").id == "abc1"
    with pytest.raises(InvalidArgument, match="ambiguous"):
        find_node(tables, "ab")
    with pytest.raises(NotFound, match="node x not found"):
        find_node(tables, "x")
    with pytest.raises(InvalidArgument):
        find_node(tables, "")

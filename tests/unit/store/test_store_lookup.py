"""What users type finds one object, or is refused."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from store_helpers import commit, service, task

from pyswarm_common.errors import InvalidArgument, NotFound
from pyswarm_common.model import Network, NetworkSpec, Node, NodeDescription
from pyswarm_manager.store.changes import Create
from pyswarm_manager.store.lookup import find_network, find_node, find_service, find_task
from pyswarm_manager.store.tables import Tables


@pytest.fixture
def tables() -> Tables:
    tables = Tables()
    web = service("web")
    commit(tables, Create(web), Create(Network(id="net1", spec=NetworkSpec(name="front"))))
    for number, node in ((1, "n1"), (2, "n1"), (3, "n2")):
        commit(tables, Create(task(number, web, node_id=node)))
    return tables


def test_objects_are_found_by_id_name_or_the_beginning_of_the_id(tables: Tables) -> None:
    commit(tables, Create(Node(id="abc1", description=NodeDescription(hostname="alpha"))), Create(Node(id="abd2")))
    assert find_service(tables, "web").id == "id-web"
    assert find_service(tables, "id-w").id == "id-web"
    assert find_network(tables, "front").id == find_network(tables, "net").id == "net1"
    assert find_task(tables, "web.2").id == find_task(tables, "task2").id == "task2"
    for unknown in ("web.4", "web.02", "web.", "web.²", "other.1", "web.n1", "web." + "9" * 5000):
        with pytest.raises(NotFound, match=r"task .* not found"):
            find_task(tables, unknown)
    assert find_node(tables, "alpha").id == find_node(tables, "abc").id == "abc1"
    with pytest.raises(InvalidArgument, match="ambiguous"):
        find_node(tables, "ab")
    with pytest.raises(NotFound, match="node x not found"):
        find_node(tables, "x")
    with pytest.raises(InvalidArgument):
        find_node(tables, "")


def test_a_task_of_a_global_service_is_named_after_its_node(tables: Tables) -> None:
    agent = service("agent")
    commit(tables, Create(agent), Create(replace(task(7, agent, node_id="n1"), slot=0)))
    assert find_task(tables, "agent.n1").id == "task7"


def test_names_are_looked_up_and_not_searched_for(tables: Tables) -> None:
    """Each call of the API names an object: with 100,000 tasks none may look at all of them."""

    class Unsearchable(dict[str, object]):
        def values(self) -> object:  # type: ignore[override]
            raise AssertionError("searched")

    for name in ("services", "networks", "tasks"):
        setattr(tables, name, Unsearchable(getattr(tables, name)))
    assert find_service(tables, "web").id == "id-web"
    assert find_network(tables, "front").id == "net1"
    assert find_task(tables, "web.3").id == "task3"

"""Where agents are told that managers are, and whom they may ask."""

from __future__ import annotations

from pyswarm_common.model import ManagerStatus, Node, NodeDescription, NodeState, NodeStatus
from pyswarm_manager.dispatcher.core.whereabouts import OTHERS, place_of, whereabouts


def node(node_id: str, *, manager: bool = False, state: NodeState = NodeState.READY, agent: str = "") -> Node:
    status = ManagerStatus(raft_id=1, address=f"{node_id}:2377") if manager else None
    description = NodeDescription(hostname=node_id, agent_address=agent or f"{node_id}:7946")
    return Node(id=node_id, manager_status=status, description=description, status=NodeStatus(state=state))


def test_agents_of_managers_come_first_then_those_of_a_few_others() -> None:
    nodes = [node(f"w{number:02}") for number in range(3 * OTHERS)] + [
        node("z2", manager=True),
        node("z1", manager=True),
    ]
    found = whereabouts(nodes)
    assert found.managers == ("z1:2377", "z2:2377")
    assert found.agents == ("z1:7946", "z2:7946", *(f"w{number:02}:7946" for number in range(OTHERS)))
    assert whereabouts(reversed(nodes)) == found


def test_who_was_never_seen_can_be_neither_dialled_nor_asked() -> None:
    unseen = Node(id="a")
    assert whereabouts([unseen, node("b", manager=True)]) == whereabouts([node("b", manager=True)])
    assert place_of(unseen) == ("", "")
    assert place_of(None) is None


def test_only_a_new_place_is_news() -> None:
    assert place_of(node("a")) == place_of(node("a", state=NodeState.DOWN))
    assert place_of(node("a")) != place_of(node("a", manager=True))
    assert place_of(node("a")) != place_of(node("a", agent="elsewhere:7946"))

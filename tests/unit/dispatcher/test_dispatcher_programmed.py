"""Acknowledgements by version: who is waited for, and that the heap never knows less than a plain list would."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm_manager.dispatcher.core.programmed import Programmed

NODES = ("n1", "n2", "n3")
NETWORKS = ("a", "b")


def programmed_by(*node_ids: str) -> Programmed:
    programmed = Programmed()
    for node_id in node_ids:
        programmed.set_up(node_id, True)
        programmed.use(node_id, "a", 1)
    return programmed


def test_everybody_who_holds_the_table_is_waited_for() -> None:
    programmed = programmed_by("n1", "n2")
    programmed.set_up("n3", True)
    assert not programmed.has("a", 5)
    programmed.acknowledge("n1", "a", 5)
    assert programmed.behind("a", 5) == ["n2"]
    programmed.acknowledge("n2", "a", 7)
    assert programmed.has("a", 5)
    assert not programmed.has("a", 6)


def test_whoever_waits_is_named_once() -> None:
    programmed = programmed_by("n1", "n2")
    programmed.wait("t1", [("a", 5)])
    programmed.wait("t2", [("a", 6)])
    programmed.acknowledge("n1", "a", 6)
    assert programmed.take_reached() == []
    programmed.acknowledge("n2", "a", 5)
    assert programmed.take_reached() == ["t1"]
    programmed.acknowledge("n2", "a", 6)
    assert programmed.take_reached() == ["t2"]
    assert programmed.take_reached() == []
    assert not programmed.waiting()


def test_a_node_that_goes_down_or_leaves_the_network_is_not_waited_for() -> None:
    programmed = programmed_by("n1", "n2", "n3")
    programmed.wait("t1", [("a", 5)])
    programmed.acknowledge("n1", "a", 5)
    programmed.set_up("n2", False)
    assert programmed.take_reached() == []
    programmed.use("n3", "a", -1)
    assert programmed.take_reached() == ["t1"]


def test_a_node_that_comes_back_counts_with_what_its_kernel_has() -> None:
    programmed = programmed_by("n1", "n2")
    for node_id in ("n1", "n2"):
        programmed.acknowledge(node_id, "a", 5)
    programmed.set_up("n2", False)
    programmed.acknowledge("n1", "a", 9)
    assert programmed.has("a", 9)
    programmed.set_up("n2", True)
    assert programmed.has("a", 5)
    assert not programmed.has("a", 9)


def test_a_network_that_is_gone_keeps_nobody_waiting() -> None:
    programmed = programmed_by("n1")
    programmed.wait("t1", [("a", 5)])
    programmed.forget_network("a")
    assert programmed.take_reached() == ["t1"]
    assert programmed.has("a", 5)


def test_a_node_that_never_acknowledges_lets_nothing_grow() -> None:
    programmed = programmed_by("n1", "n2")
    for version in range(1, 5000):
        programmed.acknowledge("n1", "a", version)
        programmed.wait(f"t{version % 3}", [("a", version)])
    floor = programmed._floors["a"]
    assert max(len(floor.heap), len(floor.waits)) < 50


STEPS = st.one_of(
    st.tuples(st.just("use"), st.sampled_from(NODES), st.sampled_from(NETWORKS), st.sampled_from([1, -1])),
    st.tuples(st.just("up"), st.sampled_from(NODES), st.just(""), st.sampled_from([0, 1])),
    st.tuples(st.just("ack"), st.sampled_from(NODES), st.sampled_from(NETWORKS), st.integers(1, 9)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_it_says_what_a_plain_list_says(steps: list[tuple[str, str, str, int]]) -> None:
    programmed, uses = Programmed(), {(node, network): 0 for node in NODES for network in NETWORKS}
    acked: dict[tuple[str, str], int] = {}
    up: set[str] = set()
    for what, node, network, value in steps:
        if what == "use" and uses[node, network] + value >= 0:
            uses[node, network] += value
            programmed.use(node, network, value)
            if not uses[node, network]:
                acked.pop((node, network), None)
        elif what == "up":
            (up.add if value else up.discard)(node)
            programmed.set_up(node, bool(value))
        elif what == "ack":
            programmed.acknowledge(node, network, value)
            if uses[node, network]:
                acked[node, network] = max(value, acked.get((node, network), 0))
        for other in NETWORKS:
            holders = [name for name in NODES if name in up and uses[name, other]]
            for version in range(1, 10):
                behind = [name for name in holders if acked.get((name, other), 0) < version]
                assert programmed.has(other, version) == (not behind)
                assert programmed.behind(other, version) == behind


def test_whoever_is_excused_is_waited_for_again_when_it_says_something_new() -> None:
    programmed = programmed_by("n1", "n2")
    programmed.acknowledge("n1", "a", 5)
    programmed.acknowledge("n2", "a", 3)
    programmed.wait("t1", [("a", 5)])
    programmed.excuse("n2")
    assert programmed.take_reached() == ["t1"]
    programmed.acknowledge("n2", "a", 3)
    assert programmed.has("a", 5), "that was no news"
    programmed.acknowledge("n2", "a", 4)
    assert not programmed.has("a", 5)
    assert programmed.behind("a", 5) == ["n2"]


def test_an_excuse_ends_with_the_node_and_covers_networks_that_it_comes_to() -> None:
    programmed = programmed_by("n1")
    programmed.excuse("n1")
    programmed.use("n1", "b", 1)
    assert programmed.has("a", 5)
    assert programmed.has("b", 5)
    programmed.set_up("n1", False)
    programmed.set_up("n1", True)
    assert not programmed.has("a", 5)
    assert not programmed.has("b", 5)

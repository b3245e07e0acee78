"""For how long nodes are waited for: as long as they go on acknowledging, and no longer than a drain's deadline."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common.model import Availability, Node, NodeSpec
from pyswarm_manager.dispatcher.core.patience import LOOKS_LIMIT, DrainDeadlines, Patience


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=5 * LOOKS_LIMIT))
def test_only_who_was_silent_at_every_look_is_excused(looks: list[tuple[bool, bool]]) -> None:
    """Against a plain count of the looks at which it held up others and had nothing new to say."""
    patience, silent = Patience(), 0
    for is_behind, is_heard in looks:
        silent = silent + 1 if is_behind and not is_heard else 0
        found = patience.look({"n1"} if is_behind else set(), {"n1"} if is_heard else set())
        assert found == (["n1"] if silent >= LOOKS_LIMIT else [])
        if found:
            silent = 0


def drained(started: float, deadline_s: float) -> Node:
    spec = NodeSpec(availability=Availability.DRAIN, drain_deadline_s=deadline_s)
    return Node(id="n1", spec=spec, drain_started_at=started)


def test_a_deadline_is_over_once_and_only_with_its_drain() -> None:
    deadlines = DrainDeadlines()
    deadlines.observe("n1", drained(1000.0, 30.0), 1000.0, 5.0)
    deadlines.observe("n1", drained(1000.0, 30.0), 1020.0, 7.0)  # something else about the node changed
    assert deadlines.take_over(34.9) == []
    assert deadlines.take_over(35.0) == ["n1"]
    assert deadlines.take_over(36.0) == []
    assert deadlines.is_over("n1")
    deadlines.observe("n1", Node(id="n1", spec=NodeSpec()), 1040.0, 45.0)
    assert not deadlines.is_over("n1")
    deadlines.observe("n1", drained(1050.0, 10.0), 1050.0, 55.0)
    assert deadlines.take_over(60.0) == []
    assert deadlines.take_over(65.0) == ["n1"]


def test_nobody_waits_longer_than_the_deadline_when_the_calendar_was_set_back() -> None:
    deadlines = DrainDeadlines()
    deadlines.observe("n1", drained(90_000.0, 30.0), 1000.0, 5.0)
    assert deadlines.take_over(35.0) == ["n1"]


def test_without_a_deadline_nothing_is_over() -> None:
    deadlines = DrainDeadlines()
    deadlines.observe("n1", drained(0.0, 0.0), 1000.0, 5.0)
    assert deadlines.take_over(1e9) == []

"""The judge of histories: known good ones, known bad ones, and agreement with trying every order."""

from __future__ import annotations

import random
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_simulator import linearizability
from pyswarm_simulator.linearizability import Kind, Operation, TooManyConfigurations, check


def read(process: int, call: float, ret: float | None, result: str | None, key: str = "x") -> Operation:
    return Operation(process, call, ret, Kind.READ, key, result=result)


def write(process: int, call: float, ret: float | None, value: str, key: str = "x") -> Operation:
    return Operation(process, call, ret, Kind.WRITE, key, value=value)


def swap(process: int, call: float, ret: float | None, expected: str | None, value: str, result: bool) -> Operation:
    return Operation(process, call, ret, Kind.COMPARE_AND_SET, "x", value, result, expected)


GOOD = {
    "nothing": [],
    "a register begins empty": [read(1, 0, 1, None)],
    "one after another": [write(1, 0, 1, "a"), read(2, 2, 3, "a"), write(1, 4, 5, "b"), read(2, 6, 7, "b")],
    "a read beside a write may see the old value": [write(1, 0, 10, "a"), read(2, 1, 2, None)],
    "or the new one": [write(1, 0, 10, "a"), read(2, 1, 2, "a")],
    "what returns when the next is called is beside it": [write(1, 0, 5, "a"), read(2, 5, 6, None)],
    "old, then new, while the write is under way": [write(1, 0, 10, "a"), read(2, 1, 2, None), read(2, 3, 4, "a")],
    "an unanswered write took effect": [write(1, 0, None, "a"), read(2, 5, 6, "a")],
    "an unanswered write did not": [write(1, 0, None, "a"), read(2, 5, 6, None)],
    "an unanswered write takes effect late": [
        write(1, 0, None, "a"),
        write(2, 1, 2, "b"),
        read(2, 3, 4, "b"),
        read(2, 50, 51, "a"),
    ],
    "an unanswered read says nothing": [write(1, 0, 1, "a"), read(2, 2, None, None)],
    "registers do not see each other": [write(1, 0, 1, "a", "x"), read(2, 2, 3, None, "y")],
    "two writes beside each other, seen in either order": [
        write(1, 0, 10, "a"),
        write(2, 0, 10, "b"),
        read(3, 11, 12, "a"),
    ],
    "one of two compare-and-sets wins": [swap(1, 0, 5, None, "a", True), swap(2, 0, 5, None, "b", False)],
    "an unanswered compare-and-set may have won": [swap(1, 0, None, None, "a", False), read(2, 5, 6, "a")],
}

BAD = {
    "a value nobody wrote": [read(1, 0, 1, "a")],
    "a lost write": [write(1, 0, 1, "a"), read(2, 2, 3, None)],
    "a stale read after a newer one": [
        write(1, 0, 1, "a"),
        write(1, 2, 3, "b"),
        read(2, 4, 5, "b"),
        read(3, 6, 7, "a"),
    ],
    "new, then old, while the write is under way": [
        write(1, 0, 10, "a"),
        read(2, 1, 2, "a"),
        read(3, 3, 4, None),
    ],
    "a write seen before it was called": [read(1, 0, 1, "a"), write(2, 2, 3, "a")],
    "an unanswered write that was undone": [
        write(1, 0, None, "a"),
        read(2, 1, 2, "a"),
        read(2, 3, 4, None),
    ],
    "readers that disagree on the order of two writes": [
        write(1, 0, 10, "a"),
        write(2, 0, 10, "b"),
        read(3, 11, 12, "a"),
        read(3, 13, 14, "b"),
    ],
    "two compare-and-sets that both won": [swap(1, 0, 5, None, "a", True), swap(2, 0, 5, None, "b", True)],
    "one bad register among good ones": [
        write(1, 0, 1, "a", "x"),
        read(1, 2, 3, "a", "x"),
        write(1, 4, 5, "a", "y"),
        read(1, 6, 7, None, "y"),
    ],
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD.keys())
def test_a_good_history_is_linearizable(history: list[Operation]) -> None:
    assert check(history).ok


@pytest.mark.parametrize("history", BAD.values(), ids=BAD.keys())
def test_a_bad_history_is_not(history: list[Operation]) -> None:
    verdict = check(history)
    assert not verdict.ok
    assert verdict.stuck
    assert repr(verdict.key) in verdict.explain()


def test_the_explanation_names_what_was_found_and_when() -> None:
    verdict = check([write(1, 0, 1, "a"), read(2, 2, 3, None)])
    assert verdict.explain().splitlines() == [
        "register 'x': no order fits; the longest is",
        "  [0, 1] process 1: write a",
        "and then none of",
        "  [2, 3] process 2: read -> None",
    ]


OPERATIONS = st.builds(
    lambda process, call, length, kind, value, expected, done: Operation(
        process,
        call,
        None if length is None else call + length,
        kind,
        "x",
        value=value,
        result=done if kind is Kind.COMPARE_AND_SET else expected,
        expected=expected,
    ),
    process=st.integers(1, 3),
    call=st.integers(0, 8),
    length=st.none() | st.integers(0, 6),
    kind=st.sampled_from(Kind),
    value=st.sampled_from("ab"),
    expected=st.none() | st.sampled_from("ab"),
    done=st.booleans(),
)


@given(st.lists(OPERATIONS, max_size=5))
def test_it_agrees_with_trying_every_order(history: list[Operation]) -> None:
    assert check(history).ok == some_order_fits(history)


def some_order_fits(history: list[Operation]) -> bool:
    """By definition: any choice of the unanswered operations, in any order that keeps to the clock."""
    answered = [o for o in history if o.ret is not None]
    unanswered = [o for o in history if o.ret is None and o.kind is not Kind.READ]
    for chosen in range(1 << len(unanswered)):
        picked = answered + [o for i, o in enumerate(unanswered) if chosen >> i & 1]
        if any(fits(order) for order in permutations(picked)):
            return True
    return False


def fits(order: tuple[Operation, ...]) -> bool:
    state: str | None = None
    for place, operation in enumerate(order):
        if any(later.ret is not None and later.ret < operation.call for later in order[place + 1 :]):
            return False
        if operation.kind is Kind.READ:
            if operation.result != state:
                return False
        elif operation.kind is Kind.WRITE:
            state = operation.value
        else:
            if operation.ret is not None and operation.result != (state == operation.expected):
                return False
            state = operation.value if state == operation.expected else state
    return True


def test_a_long_history_of_a_real_register_is_judged() -> None:
    rng = random.Random(7)
    state, clock, history = None, 0.0, []
    for number in range(3_000):
        process, begin = number % 6, clock
        clock += rng.random()
        if rng.random() < 0.5:
            state = str(number)
            history.append(write(process, begin - rng.random(), clock + rng.random(), state))
        else:
            history.append(read(process, begin - rng.random(), clock + rng.random(), state))
    assert check(history).ok
    last = history[-1]
    history.append(read(9, last.call + 10, last.call + 11, "never written"))
    assert not check(history).ok


def test_a_search_that_grows_too_large_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearizability, "MAX_CONFIGURATIONS", 50)
    history = [write(i, 0, None, str(i)) for i in range(12)] + [read(99, 1, 2, "never written")]
    with pytest.raises(TooManyConfigurations):
        check(history)

"""Advice is followed when it has been right for a while."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common.model import AutoscaleSpec
from pyswarm_manager.autoscale.windows import MAX_ADVICE, Window

SPEC = AutoscaleSpec(min_replicas=1, max_replicas=20, cpu_percent=50, scale_down_window_s=60.0, scale_up_window_s=10.0)


def followed(window: Window, advice: list[tuple[float, int]], current: int, spec: AutoscaleSpec = SPEC) -> list[int]:
    """The number after each piece of advice."""
    out = []
    for at, advised in advice:
        current = window.settle(spec, current, advised, at)
        out.append(current)
    return out


def test_more_after_the_up_window_and_fewer_after_the_down_window() -> None:
    up = [(float(at), 4) for at in range(0, 21, 5)]
    assert followed(Window(), up, 2) == [2, 2, 2, 4, 4]
    down = [(float(at), 1) for at in range(0, 76, 15)]
    assert followed(Window(), down, 3) == [3, 3, 3, 3, 3, 1]


def test_a_short_peak_changes_nothing() -> None:
    advice = [(0.0, 2), (5.0, 9), (10.0, 2), (15.0, 9), (20.0, 2)]
    assert followed(Window(), advice, 2) == [2] * 5


def test_a_short_lull_keeps_the_tasks() -> None:
    advice = [(float(at), 5 if at == 50 else 1) for at in range(0, 121, 10)]
    assert followed(Window(), advice, 5)[:11] == [5] * 11


def test_in_between_as_far_as_every_advice_goes() -> None:
    window = Window()
    assert followed(window, [(0.0, 8), (5.0, 6), (11.0, 9)], 2) == [2, 2, 6]


def test_a_new_leader_changes_nothing_before_its_windows_are_full() -> None:
    assert followed(Window(), [(1000.0, 20), (1009.0, 20)], 3) == [3, 3]
    assert followed(Window(), [(1000.0, 1), (1059.0, 1)], 3) == [3, 3]


def test_without_windows_advice_is_followed_at_once_and_what_is_kept_is_bounded() -> None:
    spec = AutoscaleSpec(
        min_replicas=1, max_replicas=20, cpu_percent=50, scale_down_window_s=0.0, scale_up_window_s=0.0
    )
    window = Window()
    assert followed(window, [(0.0, 2), (5.0, 3), (10.0, 1)], 2, spec) == [2, 3, 1]
    assert len(window.advice) <= 2
    for at in range(3 * MAX_ADVICE):
        window.settle(SPEC, 2, 2, at / 1000)
    assert len(window.advice) <= MAX_ADVICE


@given(st.lists(st.tuples(st.floats(0.1, 20), st.integers(1, 20)), max_size=60), st.integers(1, 20))
def test_whatever_is_advised_numbers_stay_between_what_was_advised_and_what_was(
    steps: list[tuple[float, int]], current: int
) -> None:
    window, at, seen = Window(), 0.0, [current]
    for pause, advised in steps:
        at += pause
        seen.append(advised)
        current = window.settle(SPEC, current, advised, at)
        assert min(seen) <= current <= max(seen)

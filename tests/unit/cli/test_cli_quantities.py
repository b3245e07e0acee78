"""Durations, sizes, cpus and counts as users write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_cli.parse.quantities import count, duration_s, nano_cpus, ratio, size_bytes
from pyswarm_common.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("0", 0), ("0s", 0), ("2h45m", 9900), (".5s", 0.5)],
)
def test_a_duration_is_a_sum_of_numbers_with_units(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "10 s", "-5s", "10d", "1m 30s", "1e3s", "999999999999999h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="duration"):
        duration_s(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64m", 64 << 20),
        ("1g", 1 << 30),
        ("1G", 1 << 30),
        ("512", 512),
        ("512b", 512),
        ("1.5kb", 1536),
        ("2GiB", 2 << 30),
    ],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1m", "1x", "1 2", "99999999p", "1e3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="size"):
        size_bytes(text)


@pytest.mark.parametrize(
    ("text", "nanos"), [("0.5", 500_000_000), ("2", 2_000_000_000), ("0.1", 100_000_000), ("1e-9", 1)]
)
def test_cpus_are_exact(text: str, nanos: int) -> None:
    assert nano_cpus(text) == nanos


@pytest.mark.parametrize("text", ["", "-1", "x", "NaN", "inf", "0.0000000001", "1e30"])
def test_what_is_no_number_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="cpus"):
        nano_cpus(text)


@pytest.mark.parametrize("text", ["-1", "1.5", "", "x", "99999999999999999999", "٣"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        count(text)


@pytest.mark.parametrize("text", ["-0.1", "1.1", "x", "nan"])
def test_what_is_no_ratio_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        ratio(text)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    for read in (duration_s, size_bytes, nano_cpus, count, ratio):
        with contextlib.suppress(InvalidArgument):
            assert read(text) >= 0


@given(st.integers(0, 10_000), st.integers(0, 59), st.integers(0, 59))
def test_a_duration_adds_its_parts_up(hours: int, minutes: int, seconds: int) -> None:
    assert duration_s(f"{hours}h{minutes}m{seconds}s") == pytest.approx(hours * 3600 + minutes * 60 + seconds)

"""Schedules: which moments are ticks, across changes of the clocks, and whatever text a user gives."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.schedule import LONGEST_EVERY_S, MAX_LENGTH, parse_schedule

BERLIN = ZoneInfo("Europe/Berlin")


def ticks(text: str, zone: str, start: datetime, count: int) -> list[str]:
    """The next ticks in local time."""
    schedule, at, found = parse_schedule(text, zone), start.timestamp(), []
    for _ in range(count):
        following = schedule.after(at, start.timestamp())
        assert following is not None
        assert following > at
        at = following
        found.append(datetime.fromtimestamp(at, ZoneInfo(zone) if zone else UTC).isoformat(timespec="minutes"))
    return found


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("*/5 * * * *", ["2026-03-02T10:05+00:00", "2026-03-02T10:10+00:00"]),
        ("0 0 * * *", ["2026-03-03T00:00+00:00", "2026-03-04T00:00+00:00"]),
        ("@daily", ["2026-03-03T00:00+00:00", "2026-03-04T00:00+00:00"]),
        ("@midnight", ["2026-03-03T00:00+00:00", "2026-03-04T00:00+00:00"]),
        ("@hourly", ["2026-03-02T11:00+00:00", "2026-03-02T12:00+00:00"]),
        ("@WEEKLY", ["2026-03-08T00:00+00:00", "2026-03-15T00:00+00:00"]),
        ("@monthly", ["2026-04-01T00:00+00:00", "2026-05-01T00:00+00:00"]),
        ("@yearly", ["2027-01-01T00:00+00:00", "2028-01-01T00:00+00:00"]),
        ("0 12 * * mon-fri", ["2026-03-02T12:00+00:00", "2026-03-03T12:00+00:00"]),
        ("0 0 29 feb *", ["2028-02-29T00:00+00:00", "2032-02-29T00:00+00:00"]),
        ("0 0 13 * fri", ["2026-03-06T00:00+00:00", "2026-03-13T00:00+00:00"]),  # either, as in every cron
        ("@every 90s", ["2026-03-02T10:03+00:00", "2026-03-02T10:04+00:00"]),
        ("@every 1h30m", ["2026-03-02T11:31+00:00", "2026-03-02T13:01+00:00"]),
    ],
)
def test_ticks_in_utc(text: str, following: list[str]) -> None:
    assert ticks(text, "", datetime(2026, 3, 2, 10, 1, 30, tzinfo=UTC), 2) == following


def test_a_time_that_is_left_out_comes_at_the_end_of_the_gap() -> None:
    start = datetime(2026, 3, 28, 12, tzinfo=BERLIN)
    assert ticks("30 2 * * *", "Europe/Berlin", start, 2) == ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]
    # Two times in the gap are one moment after it.
    assert ticks("0,30 2 * * *", "Europe/Berlin", start, 2) == ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"]


def test_a_time_that_comes_twice_is_one_tick() -> None:
    start = datetime(2026, 10, 24, 12, tzinfo=BERLIN)
    assert ticks("30 2 * * *", "Europe/Berlin", start, 2) == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]
    between = datetime(2026, 10, 25, 2, 15, tzinfo=BERLIN, fold=1)
    assert ticks("30 2 * * *", "Europe/Berlin", between, 1) == ["2026-10-26T02:30+01:00"]


def test_what_runs_every_hour_or_minute_runs_as_time_passes() -> None:
    spring = datetime(2026, 3, 29, 0, 45, tzinfo=BERLIN)
    assert ticks("30 * * * *", "Europe/Berlin", spring, 3) == [
        "2026-03-29T01:30+01:00",
        "2026-03-29T03:30+02:00",
        "2026-03-29T04:30+02:00",
    ]
    autumn = datetime(2026, 10, 25, 1, 45, tzinfo=BERLIN)
    assert ticks("30 * * * *", "Europe/Berlin", autumn, 3) == [
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:30+01:00",
        "2026-10-25T03:30+01:00",
    ]
    quarters = ticks("*/15 * * * *", "Europe/Berlin", autumn, 10)
    assert quarters[0] == "2026-10-25T02:00+02:00"
    assert quarters[8] == "2026-10-25T03:00+01:00"


def test_every_counts_from_the_anchor_whatever_the_clocks_say() -> None:
    schedule = parse_schedule("@every 10m", "Europe/Berlin")
    assert schedule.after(1000.0, 1000.0) == 1600.0
    assert schedule.after(1599.0, 1000.0) == 1600.0
    assert schedule.after(1600.0, 1000.0) == 2200.0
    assert schedule.anchor_at(5000.0, 1000.0) == 4600.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "0 0 30 2 *",
        "0 0 31 4,6 *",
        "@never",
        "@every",
        "@every 0s",
        "@every -1s",
        "@every 1.5s",
        "@every 1d",
        "@every 9000h",
        "@hourly @daily",
        "* * * * ①",
        "1-70 * * * *",
        "*/0 * * * *",
        "* * * * * ; rm -rf /",
        "9" * 5000,
    ],
)
def test_what_is_no_schedule_is_refused_with_one_sentence(text: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        parse_schedule(text)
    assert len(str(refusal.value)) < MAX_LENGTH + 250
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "../../etc/passwd", "/etc/passwd", "Europe", "x" * 300, "UTC\x00"])
def test_unknown_time_zones_are_refused(zone: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_schedule("@daily", zone)


FIELD = st.text(alphabet="0123456789*,-/#LWadefijmnorstu@", min_size=1, max_size=8)
ZONES = st.sampled_from(["", "Asia/Tehran"])
LIKELY = st.lists(FIELD, min_size=4, max_size=6).map(" ".join)
DURATIONS = st.text(alphabet="0123456789hms.", max_size=12).map(lambda text: f"@every {text}")


@settings(max_examples=400, deadline=None)
@given(
    text=st.one_of(st.text(max_size=60), LIKELY, DURATIONS),
    at=st.floats(0, 3e9),
    zone=ZONES,
)
@example(text="0 0 * 2 MON#5", at=1.7e9, zone="")
@example(text="0 0 L * *", at=1.7e9, zone="Asia/Tehran")
def test_every_text_is_a_schedule_or_refused(text: str, at: float, zone: str) -> None:
    try:
        schedule = parse_schedule(text, zone)
    except InvalidArgument:
        return
    following = schedule.after(at, at)
    if following is None:
        return
    assert following > at
    later = schedule.after(following, following)
    assert later is None or following < later
    if text.startswith("@every"):
        assert following - at <= LONGEST_EVERY_S
    # Nothing between: what is asked from a moment before finds the same tick.
    assert schedule.after(following - 0.5 if following - 0.5 > at else at, at) == following

"""When a cron service runs: five fields, @hourly and its like, or @every with a duration; in a time zone.

Decides which moments are ticks, and nothing else: no clock, no state. Across changes of the clocks it does as Debian's
cron does: a job of a fixed time that falls into the hour that is left out runs at the end of that hour, one that falls
into the hour that comes twice runs once, and jobs of every hour or minute run as time passes. Ticks of @every are
counted from the one before.

Who acts next: the planner decides about each tick, the API refuses what `parse_schedule` refuses.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from pyswarm_common.errors import InvalidArgument

MAX_LENGTH: Final = 256
LONGEST_EVERY_S: Final = 366 * 24 * 3600
_FIELDS: Final = 5
_NAMED: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_DURATION: Final = re.compile(r"(?:([0-9]{1,5})h)?(?:([0-9]{1,7})m)?(?:([0-9]{1,9})s)?")
_ZONE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*(?:/[A-Za-z0-9][A-Za-z0-9_+-]*){0,3}")
_HELP: Final = 'use five fields as in "*/5 * * * *", @hourly, @daily, @weekly, @monthly, @yearly, or "@every 90s"'
# Beyond these, calendars of some zones cannot be computed any more.
_FIRST_MOMENT: Final = 0.0
_LAST_MOMENT: Final = 4e9


class Schedule(Protocol):
    """Ticks, in unix seconds."""

    def after(self, at: float, anchor: float) -> float | None:
        """The first tick after `at`; None if there never is one. `anchor` is a tick, or when the service began."""
        ...

    def anchor_at(self, at: float, anchor: float) -> float:
        """The latest moment not after `at` which, as an anchor, gives the same ticks."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    period_s: int

    def after(self, at: float, anchor: float) -> float:
        return self.anchor_at(at, anchor) + self.period_s

    def anchor_at(self, at: float, anchor: float) -> float:
        return anchor + math.floor((at - anchor) / self.period_s) * self.period_s


@dataclass(frozen=True, slots=True)
class Calendar:
    fields: str
    zone: tzinfo

    def after(self, at: float, anchor: float) -> float | None:
        del anchor
        if not _FIRST_MOMENT <= at <= _LAST_MOMENT:
            return None
        ticks = CronSim(self.fields, datetime.fromtimestamp(at, self.zone))
        # Within the hour that comes twice a fixed time is found once more, although it is past: it is passed over.
        found = (tick.timestamp() for tick in ticks)
        return next((tick for tick in found if tick > at), None)

    def anchor_at(self, at: float, anchor: float) -> float:
        return max(at, anchor)


@lru_cache(maxsize=1024)
def parse_schedule(text: str, time_zone: str = "") -> Schedule:
    """The schedule, in the zone (an IANA name; empty is UTC). Raises InvalidArgument."""
    zone = _zone(time_zone)
    words = text.split()
    if len(text) > MAX_LENGTH or not text.isascii() or not words:
        raise _invalid(text)
    if words[0] == "@every":
        return Every(_seconds(text, words[1:]))
    fields = _NAMED.get(words[0].lower(), "") if len(words) == 1 else " ".join(words)
    if len(fields.split()) != _FIELDS:
        raise _invalid(text)
    return _calendar(text, fields, zone)


def _calendar(text: str, fields: str, zone: tzinfo) -> Calendar:
    schedule = Calendar(fields, zone)
    try:
        first = schedule.after(0.0, 0.0)
    except (CronSimError, AssertionError, ValueError) as error:
        raise _invalid(text, str(error)) from error
    if first is None:
        raise InvalidArgument(f'schedule "{text}" never comes: there is no such day')
    return schedule


def _seconds(text: str, words: list[str]) -> int:
    found = _DURATION.fullmatch(words[0]) if len(words) == 1 and words[0] else None
    if found is None:
        raise _invalid(text)
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    period_s = hours * 3600 + minutes * 60 + seconds
    if not 1 <= period_s <= LONGEST_EVERY_S:
        raise InvalidArgument(f'schedule "{text}": @every takes between 1s and {LONGEST_EVERY_S // 3600}h')
    return period_s


def _zone(name: str) -> tzinfo:
    if not name:
        return UTC
    if len(name) > MAX_LENGTH or _ZONE.fullmatch(name) is None:
        raise InvalidArgument(f'invalid time zone "{name[:MAX_LENGTH]}": use a name as "Europe/Berlin"')
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError, ValueError) as error:
        raise InvalidArgument(f'unknown time zone "{name}": use a name as "Europe/Berlin"') from error


def _invalid(text: str, why: str = "") -> InvalidArgument:
    detail = f" ({why[0].lower()}{why[1:]})" if why else ""
    return InvalidArgument(f'invalid schedule "{text[:MAX_LENGTH]}"{detail}: {_HELP}')

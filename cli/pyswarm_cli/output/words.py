"""Times, sizes and shortened ids in words, as docker says them. Pure."""

from __future__ import annotations

import datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
SHORT_ID = 12


def human_duration(seconds: float) -> str:
    """ "About a minute", "3 hours"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < _MINUTE:
        return f"{whole} seconds"
    if whole < 2 * _MINUTE:
        return "About a minute"
    if whole < _HOUR:
        return f"{whole // _MINUTE} minutes"
    hours = int(seconds / _HOUR + 0.5)
    if hours == 1:
        return "About an hour"
    return f"{hours} hours" if hours < 48 else _human_days(whole)


def _human_days(seconds: int) -> str:
    days = seconds // _DAY
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    return f"{days // 30} months" if days < 730 else f"{days // 365} years"


def ago(then: float, now: float) -> str:
    """ "3 minutes ago"; a clock that is ahead of ours counts as now."""
    return f"{human_duration(max(0.0, now - then))} ago"


def expiry(moment: float, now: float) -> str:
    """ "in 3 days"; zero is never."""
    if not moment:
        return "never"
    return f"in {human_duration(moment - now).lower()}" if moment > now else "expired"


def human_size(size: int) -> str:
    """ "1.24MB", powers of 1000, four digits."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.4g}{units[0]}"


def truncate(text: str, length: int) -> str:
    """At most `length` characters, the last of them "…" when something is missing."""
    return text if len(text) <= length else text[: length - 1] + "…"


def short_id(identifier: str) -> str:
    """The first twelve characters, without "sha256:"."""
    return identifier.removeprefix("sha256:")[:SHORT_ID]


def iso_time(unix_s: float) -> str:
    """RFC 3339 in UTC, as docker's inspect prints times."""
    if not unix_s:
        return "0001-01-01T00:00:00Z"
    moment = datetime.datetime.fromtimestamp(unix_s, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def printable(text: str) -> str:
    """Without control characters: what comes from elsewhere must not steer the user's terminal."""
    return "".join(character if character.isprintable() else " " for character in text)

"""Moments and lifetimes as a user writes them: "10m" (ago), unix seconds, RFC 3339; "90d".

Pure: now is an argument.
"""

from __future__ import annotations

import datetime
import math
import re

from pyswarm_cli.parse.quantities import duration_s
from pyswarm_common.errors import InvalidArgument

_DAYS = re.compile(r"(\d{1,6})d(.*)")
_DAY_S = 86_400.0


def lifetime_s(text: str) -> float:
    """Seconds of a duration that may begin with days: "90d", "1d12h", "10m"."""
    match = _DAYS.fullmatch(text)
    if match is None:
        return duration_s(text)
    return float(match.group(1)) * _DAY_S + (duration_s(match.group(2)) if match.group(2) else 0.0)


def moment(text: str, now: float) -> float:
    """Unix seconds of a duration ago, of unix seconds, or of a date and time."""
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if not 0.0 <= seconds < 253_402_300_800.0 or math.isnan(seconds):
            raise InvalidArgument(f'"{text}" is not a moment: unix seconds of the years 1970 to 9999')
        return seconds
    try:
        parsed = datetime.datetime.fromisoformat(text)
    except ValueError:
        return max(0.0, now - _ago_s(text))
    return max(0.0, (parsed if parsed.tzinfo else parsed.astimezone()).timestamp())


def _ago_s(text: str) -> float:
    try:
        return lifetime_s(text)
    except InvalidArgument:
        example = "10m, 1d12h, 1735689600 or 2025-01-01T00:00:00Z"
        raise InvalidArgument(f'"{text}" is not a duration or time: write for example {example}') from None

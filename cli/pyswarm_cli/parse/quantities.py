"""Durations ("1m30s"), sizes ("64m") and cpu counts ("0.5"), as docker writes them.

Pure. Who acts next: the spec builders.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from pyswarm_common.errors import InvalidArgument

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)i?b?", re.IGNORECASE)
_COUNT = re.compile(r"[0-9]{1,19}")
_EXPONENTS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_MAX_INT64 = (1 << 63) - 1
_NANO = 1_000_000_000


def duration_s(text: str) -> float:
    """Seconds of a Go duration: one or more of number and unit."""
    if text == "0":
        return 0.0
    parts = list(_DURATION_PART.finditer(text))
    if not parts or "".join(part.group(0) for part in parts) != text:
        raise InvalidArgument(f'"{text}" is not a duration: write for example 10s, 1m30s or 500ms')
    total = sum(float(part.group(1)) * _UNITS_S[part.group(2)] for part in parts)
    if total * _NANO > _MAX_INT64:
        raise InvalidArgument(f'"{text}" is too long a duration: 292 years are the most')
    return total


def size_bytes(text: str) -> int:
    """Bytes of a size; letters are powers of 1024, as in docker's memory flags."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument(f'"{text}" is not a size: write for example 64m, 1g or 1048576')
    value = int(Decimal(match.group(1)) * 1024 ** _EXPONENTS[match.group(2).lower()])
    if value > _MAX_INT64:
        raise InvalidArgument(f'"{text}" is too large a size')
    return value


def nano_cpus(text: str) -> int:
    """Units of 1e-9 of a core, exactly: "0.1" has no binary rounding."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or value < 0:
        raise InvalidArgument(f'"{text}" is not a number of cpus: write for example 0.5 or 2')
    nanos = value * _NANO
    if nanos != nanos.to_integral_value() or nanos > _MAX_INT64:
        raise InvalidArgument(f'"{text}" is not a number of cpus: it needs a whole number of billionths of a core')
    return int(nanos)


def count(text: str) -> int:
    """A whole number, zero or more."""
    if not _COUNT.fullmatch(text) or int(text) > _MAX_INT64:
        raise InvalidArgument(f'"{text}" is not a whole number of 0 or more')
    return int(text)


def ratio(text: str) -> float:
    """A share between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise InvalidArgument(f'"{text}" is not a ratio: write a number between 0 and 1')
    return value

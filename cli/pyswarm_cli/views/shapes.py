"""How docker writes things down in JSON: words of enumerations, nanoseconds, nothing where nothing was said. Pure."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
_NANO = 1_000_000_000


def word(value: Any) -> str:
    """`ON_FAILURE` as `on-failure`."""
    return str(value.name).lower().replace("_", "-")


def given(**values: Any) -> Json:
    """Without what is empty: docker leaves that out as well."""
    return {name: value for name, value in values.items() if value not in (None, "", 0, [], {}, False)}


def nanos(seconds: float | None) -> int:
    """Of a duration; none for one that is not set."""
    return round((seconds or 0.0) * _NANO)

"""What templates can call, and what one rendering may cost.

Pure, and bounded: a template that somebody else wrote is filled in by daemons, and may neither keep them busy nor fill
their memory. `Budget` is asked before and after every call; what a template says, `templates` knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from pyswarm_common.errors import InvalidArgument

MAX_STEPS: Final = 200_000
MAX_CHARACTERS: Final = 32 << 20

Functions = Mapping[str, Callable[..., Any]]


class TemplateError(InvalidArgument):
    """The template cannot be read, or does not fit the value."""

    def __init__(self, message: str) -> None:
        super().__init__(f"template parsing error: {message}")


class Budget:
    """Of one rendering: how often anything is done, and how much text goes in and out."""

    def __init__(self) -> None:
        self._steps, self._characters = MAX_STEPS, MAX_CHARACTERS

    def step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise TemplateError(f"it takes more than {MAX_STEPS} steps")

    def spend(self, value: Any) -> None:
        """As much as the value is long."""
        self._characters -= _size(value)
        if self._characters < 0:
            raise TemplateError(f"it comes to more than {MAX_CHARACTERS} characters on the way")


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return len(value) + sum(_size(key) + _size(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return len(value) + sum(_size(item) for item in value)
    return 1


def printed(value: Any) -> str:
    """As Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{printed(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(printed(item) for item in value) + "]"
    return str(value)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key, "") if isinstance(value, Mapping) else value[key]
    return value


def _join(items: Any, separator: Any) -> str:
    """The one function whose result may be far longer than what it is given."""
    between = str(separator)
    if len(items) * len(between) > MAX_CHARACTERS:
        raise TemplateError(f"it comes to more than {MAX_CHARACTERS} characters on the way")
    return between.join(printed(item) for item in items)


FUNCTIONS: Functions = {
    "json": _json,
    "len": len,
    "index": _index,
    "upper": lambda text: str(text).upper(),
    "lower": lambda text: str(text).lower(),
    "title": lambda text: str(text).title(),
    "join": _join,
    "split": lambda text, separator: str(text).split(str(separator)),
    "println": lambda *items: " ".join(printed(item) for item in items) + "\n",
    "print": lambda *items: "".join(printed(item) for item in items),
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "not": lambda value: not value,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "truncate": lambda text, length: str(text)[:length],
}

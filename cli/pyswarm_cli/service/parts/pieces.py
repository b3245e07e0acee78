"""What the parts of a specification share: values with the flags that were given, lists with `-add` and `-rm`.

Pure. A flag that was not given (None, or an empty list) changes nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Struct

Options = Mapping[str, Any]
S = TypeVar("S", bound=Struct)
T = TypeVar("T")


def words(text: str, what: str) -> tuple[str, ...]:
    """A command line as its words, quotes as in a shell."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidArgument(f'invalid {what} "{text}": {error}') from None


def enum_name(text: str) -> str:
    """`on-failure` as `ON_FAILURE`."""
    return text.upper().replace("-", "_")


def with_given(value: S, **changes: Any) -> S:
    """`value` with every change that is not None."""
    given = {name: change for name, change in changes.items() if change is not None}
    return replace(value, **given) if given else value


def pairs_changed(labels: Mapping[str, str], add: Sequence[tuple[str, str]], remove: Sequence[str]) -> dict[str, str]:
    """Without the removed keys, with the added pairs."""
    kept = {key: value for key, value in labels.items() if key not in remove}
    return {**kept, **dict(add)}


def items(have: Sequence[T], add: Sequence[T], remove: Sequence[T]) -> tuple[T, ...]:
    """Without what is removed, then what is added and not there yet."""
    out = [item for item in have if item not in remove]
    out += [item for item in add if item not in out]
    return tuple(out)


def keyed(have: Sequence[T], add: Sequence[T], remove: Sequence[str], key: Callable[[T], str]) -> tuple[T, ...]:
    """Things that are known by a name: the last of each counts, and they are removed by it."""
    found = {key(item): item for item in have if key(item) not in remove}
    found |= {key(item): item for item in add}
    return tuple(found.values())

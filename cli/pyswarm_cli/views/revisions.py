"""A service's history: what changed from one spec to the next, field by field. Pure.

Fields are named by their way into the spec ("container.image", "labels.tier"), without "task." before them. What opens
a registry is never shown, also not whether it changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from pyswarm_cli.output.rows import Columns, Row
from pyswarm_cli.output.words import ago, iso_time, printable, truncate
from pyswarm_common.model import ServiceRevision, ServiceSpec

COLUMNS = Columns(
    headings={"Revision": "REVISION", "CreatedAt": "CREATED", "Author": "AUTHOR", "Changes": "CHANGES"},
    table=("Revision", "CreatedAt", "Author", "Changes"),
    quiet="Revision",
)
_HIDDEN = ("registry_auth",)
_WIDTH = 72
_IN_A_LIST = "[]"


class Difference(NamedTuple):
    """One field: what goes and what comes. Of a list only the items that differ."""

    path: str
    old: tuple[str, ...]
    new: tuple[str, ...]


def rows(revisions: Sequence[ServiceRevision], names: Mapping[str, str], now: float, *, no_trunc: bool) -> list[Row]:
    """`service history`, newest first. `names`: of networks by id."""
    out: list[Row] = []
    for index, revision in enumerate(revisions):
        before = revisions[index - 1].spec if index else None
        text = summary(before, revision, names)
        out.append(
            {
                "Revision": revision.number,
                "CreatedAt": iso_time(revision.meta.created_at) if no_trunc else ago(revision.meta.created_at, now),
                "Author": printable(revision.author),
                "Changes": text if no_trunc else truncate(text, _WIDTH),
            }
        )
    return out[::-1]


def summary(before: ServiceSpec | None, revision: ServiceRevision, names: Mapping[str, str]) -> str:
    """What made the revision differ from the one before, in one line."""
    if before is None:
        return "created" if revision.number == 1 else "(what was before is not kept)"
    found = differences(before, revision.spec, names)
    return ", ".join(_in_words(item) for item in found) or "(nothing that is shown)"


def _in_words(item: Difference) -> str:
    name = item.path.removeprefix("container.")
    if item.path.endswith(_IN_A_LIST):
        changed = [*(f"-{value}" for value in item.old), *(f"+{value}" for value in item.new)]
        return f"{name.removesuffix(_IN_A_LIST)} {' '.join(changed)}"
    old, new = " ".join(item.old), " ".join(item.new)
    if not item.old:
        return f"{name} {new}"
    return f"{name} {old} -> {new}" if item.new else f"{name} {old} removed"


def unified(name: str, old: ServiceRevision, new: ServiceRevision, names: Mapping[str, str]) -> list[str]:
    """`service diff`: lines as of a unified diff, one field a line. Nothing if there is no difference to be shown."""
    found = list(differences(old.spec, new.spec, names))
    if not found:
        return []
    lines = [f"--- {_title(name, old)}", f"+++ {_title(name, new)}"]
    for item in found:
        path = item.path.removesuffix(_IN_A_LIST)
        lines += [f"-{path}: {value}" for value in item.old]
        lines += [f"+{path}: {value}" for value in item.new]
    return lines


def _title(name: str, revision: ServiceRevision) -> str:
    return printable(f"{name} revision {revision.number} ({iso_time(revision.meta.created_at)}, {revision.author})")


def differences(old: ServiceSpec, new: ServiceSpec, names: Mapping[str, str]) -> Iterator[Difference]:
    """Every field that is not the same, in the order of the specification."""
    before, after = dict(_fields(old, "", names)), dict(_fields(new, "", names))
    for path in dict.fromkeys((*after, *before)):
        had, has = before.get(path, ()), after.get(path, ())
        if had == has:
            continue
        gone, come = _items(had, has) if path.endswith(_IN_A_LIST) else (had, has)
        if gone or come:
            yield Difference(path, gone, come)
        else:  # another order of the same items
            yield Difference(path.removesuffix(_IN_A_LIST), (", ".join(had),), (", ".join(has),))


def _items(had: tuple[str, ...], has: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    gone, come = Counter(had) - Counter(has), Counter(has) - Counter(had)
    return tuple(gone.elements()), tuple(come.elements())


def _fields(value: msgspec.Struct, path: str, names: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for field in value.__struct_fields__:
        item = getattr(value, field)
        if field in _HIDDEN or item is None:
            continue
        where = f"{path}.{field}".removeprefix(".").removeprefix("task.")
        if isinstance(item, msgspec.Struct):
            yield from _fields(item, where, names)
        elif isinstance(item, dict):
            yield from ((f"{where}.{printable(key)}", (_text(one, names),)) for key, one in sorted(item.items()))
        elif isinstance(item, tuple):
            yield where + _IN_A_LIST, tuple(_text(one, names) for one in item)
        elif item not in ("", b"") or field == "image":
            yield where, (_text(item, names, field),)


def _text(value: Any, names: Mapping[str, str], field: str = "") -> str:
    match value:
        case Enum():
            return value.name.lower().replace("_", "-")
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}s" if field.endswith("_s") else f"{value:g}"
        case msgspec.Struct():
            return ",".join(_given(value, names))
        case dict():
            return " ".join(f"{key}={_text(item, names)}" for key, item in sorted(value.items()))
        case tuple():
            return " ".join(_text(item, names) for item in value)
    return printable(names.get(str(value), str(value)))


def _given(value: msgspec.Struct, names: Mapping[str, str]) -> Iterable[str]:
    """What differs from the default, as flags have it: `target=web,read_only=true`."""
    default = type(value)()
    for field in value.__struct_fields__:
        item = getattr(value, field)
        if item != getattr(default, field) and field not in _HIDDEN:
            yield f"{field}={_text(item, names, field)}"

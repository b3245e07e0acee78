"""Lists of objects as docker shows them: aligned tables, JSON lines, or one template line per object.

Pure: rows (mappings of docker's field names to values) in, text out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyswarm_common.templates import Template

Row = Mapping[str, Any]
_GAP = 3


@dataclass(frozen=True, slots=True)
class Columns:
    """What a command can show: field name to heading, and which of them its plain table has."""

    headings: Mapping[str, str]
    table: Sequence[str]
    quiet: str = "ID"


def show(rows: Iterable[Row], columns: Columns, format_: str = "", *, quiet: bool = False) -> str:
    """The text of a list; every line ends with a line feed."""
    if quiet and not format_:
        return "".join(f"{row[columns.quiet]}\n" for row in rows)
    if format_ == "json":
        return "".join(json.dumps(row, separators=(",", ":"), sort_keys=True) + "\n" for row in rows)
    if format_ in ("", "table"):
        cells = [[str(row[name]) for name in columns.table] for row in rows]
        return align([[columns.headings[name] for name in columns.table], *cells])
    if format_.startswith("table "):
        return _table_of(rows, columns, _template(format_.removeprefix("table ").strip()))
    template = _template(format_)
    return "".join(template.render(row) + "\n" for row in rows)


def _template(text: str) -> Template:
    """Plain lists need no template engine, and do not wait for its import."""
    from pyswarm_common.templates import Template  # noqa: PLC0415

    return Template(text)


def _table_of(rows: Iterable[Row], columns: Columns, template: Template) -> str:
    heading = {name: columns.headings.get(name, name.upper()) for name in {*columns.headings, *template.fields()}}
    lines = [template.render(heading), *(template.render(row) for row in rows)]
    return align([line.split("\t") for line in lines])


def align(lines: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the last column is not padded."""
    widths: list[int] = []
    for line in lines:
        for column, cell in enumerate(line):
            if column == len(widths):
                widths.append(0)
            widths[column] = max(widths[column], len(cell))
    out = []
    for line in lines:
        padded = [cell.ljust(widths[column] + _GAP) for column, cell in enumerate(line)]
        out.append("".join(padded).rstrip() + "\n")
    return "".join(out)


def show_objects(objects: Sequence[Mapping[str, Any]], format_: str = "") -> str:
    """What `inspect` prints: a JSON list, or one template line per object."""
    if format_ in ("", "json"):
        return json.dumps(objects, indent=4, ensure_ascii=False) + "\n"
    template = _template(format_)
    return "".join(template.render(item) + "\n" for item in objects)

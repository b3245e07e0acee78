"""What a lab remembers on disk: one small JSON file for its switch and one per host, each replaced in one step."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.files import write_whole
from pyswarm_lab.errors import LabError
from pyswarm_lab.layout import Layout
from pyswarm_lab.processes import ProcessRef


class HostRecord(msgspec.Struct, frozen=True):
    """A host: who it is, what it runs, and its first process (None: it is off)."""

    name: str
    index: int
    address: str
    role: str
    daemon: tuple[str, ...]
    init: ProcessRef | None = None
    more_addresses: tuple[str, ...] = ()
    """Of a host with both families: the second one's."""

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address, *self.more_addresses)


class SwitchRecord(msgspec.Struct, frozen=True):
    """The switch: the process that holds its namespace."""

    holder: ProcessRef


R = TypeVar("R", HostRecord, SwitchRecord)


def save(path: Path, record: HostRecord | SwitchRecord) -> None:
    """Write it so that a reader sees the old or the new one."""
    write_whole(path, msgspec.json.encode(record))


def load(path: Path, kind: type[R]) -> R | None:
    """Read it; None when there is none. A damaged one counts as none: `down` finds the processes by other means."""
    try:
        return decode_json(path.read_bytes(), kind)
    except (OSError, Malformed):
        return None


def hosts(layout: Layout) -> list[HostRecord]:
    """The lab's hosts in the order of their numbers."""
    try:
        folders = [entry for entry in layout.dir.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []
    found = (load(folder / "host.json", HostRecord) for folder in folders)
    return sorted((record for record in found if record is not None), key=lambda record: record.index)


def host(layout: Layout, name: str) -> HostRecord:
    """The host of that name. Raises LabError when the lab has none."""
    known = hosts(layout)
    for record in known:
        if record.name == name:
            return record
    names = ", ".join(record.name for record in known) or "none"
    if not known:
        raise LabError(
            f"No such lab: {layout.name}. See `pyswarm lab ls`; `pyswarm lab up --name {layout.name}` makes it."
        )
    raise LabError(f"No such host in lab {layout.name}: {name}. It has {names}.")


def lab_names(base: Path) -> list[str]:
    """Every lab with a folder."""
    try:
        return sorted(entry.name for entry in base.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []

"""What is remembered of each container, in small files written atomically, and where its things lie.

`container.json` never changes after create; `state.json` is replaced at every step. They are not synced to disk:
after a power cut no container runs any more, and one whose files are damaged is dropped, as if it had never been
made.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from pyswarm_common.documents import decode_json
from pyswarm_common.files import read_bounded, write_whole
from pyswarm_runtime.types import ContainerConfig, ContainerState, ImageConfig

MAX_FILE = 4 * 1024 * 1024
_ID = re.compile(r"[0-9a-f]{64}")
Phase = Literal["created", "starting", "running", "exited"]


class ContainerRecord(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    config: ContainerConfig
    image_id: str
    image: ImageConfig
    diff_ids: tuple[str, ...]
    created_at: float


class StoredState(msgspec.Struct, frozen=True, kw_only=True):
    """`starting` is written before the first process is made, so that a crash in between can be undone."""

    phase: Phase = "created"
    boot_id: str = ""
    pid: int = 0
    pid_started: int | None = None
    monitor_pid: int = 0
    monitor_started: int | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    started_at: float | None = None
    finished_at: float | None = None


def public_state(record: ContainerRecord, state: StoredState) -> ContainerState:
    return ContainerState(
        id=record.id,
        config=record.config,
        status="created" if state.phase == "starting" else state.phase,
        image_digest=record.image_id,
        created_at=record.created_at,
        pid=state.pid if state.phase == "running" else 0,
        exit_code=state.exit_code,
        oom_killed=state.oom_killed,
        error=state.error,
        started_at=state.started_at,
        finished_at=state.finished_at,
    )


@dataclass(frozen=True, slots=True)
class ContainerPaths:
    directory: Path
    bundle: Path  # in the run directory: gone after a reboot, as are the processes
    exit_file: Path

    @property
    def log(self) -> Path:
        return self.directory / "log" / "container.log"


class ContainerStore:
    """Blocking; every file is small."""

    def __init__(self, root: Path, run_dir: Path, namespace: str) -> None:
        self._all = root / "containers"
        self._directory = self._all / namespace
        self._bundles = run_dir / "c"
        self.exits = run_dir / "exits"
        for path in (self._directory, self._bundles, self.exits):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def paths(self, container_id: str) -> ContainerPaths:
        return ContainerPaths(self._directory / container_id, self._bundles / container_id, self.exits / container_id)

    def create(self, record: ContainerRecord, state: StoredState) -> None:
        """The directory appears under its name when it is complete."""
        final = self.paths(record.id).directory
        temporary = final.with_name(f".tmp-{record.id}")
        for path in (temporary, temporary / "log"):
            path.mkdir(mode=0o700)
        (temporary / "container.json").write_bytes(msgspec.json.encode(record))
        (temporary / "state.json").write_bytes(msgspec.json.encode(state))
        temporary.rename(final)

    def save(self, container_id: str, state: StoredState) -> None:
        write_whole(self.paths(container_id).directory / "state.json", msgspec.json.encode(state))

    def load_all(self) -> list[tuple[ContainerRecord, StoredState]]:
        """All that are whole; what was half-made or half-removed is taken away."""
        loaded = []
        for directory in sorted(self._directory.iterdir()):
            if directory.name.startswith("."):
                shutil.rmtree(directory, ignore_errors=True)
            elif (found := _read(directory)) is not None:
                loaded.append(found)
        return loaded

    def strangers(self, known: Collection[str], oci_root: Path) -> set[str]:
        """Ids of which there is something, but no readable record: their files were damaged, or they are half-gone."""
        places = (self._directory, self._bundles, self.exits, oci_root)
        found = {entry.name for place in places for entry in place.iterdir()}
        return {name for name in found - set(known) if _ID.fullmatch(name)}

    def foreign(self) -> list[ContainerRecord]:
        """Containers of other namespaces: not ours to run, but they hold images."""
        others = [path for path in self._all.iterdir() if path != self._directory and path.is_dir()]
        found = [_read(directory) for other in others for directory in other.iterdir()]
        return [entry[0] for entry in found if entry is not None]

    def remove_bundle(self, container_id: str, *, keep_exit_file: bool = False) -> None:
        paths = self.paths(container_id)
        shutil.rmtree(paths.bundle, ignore_errors=True)
        if not keep_exit_file:
            paths.exit_file.unlink(missing_ok=True)

    def remove(self, container_id: str) -> None:
        """First out of sight in one step, so that a crash leaves nothing that looks like a container."""
        paths = self.paths(container_id)
        doomed = paths.directory.with_name(f".tmp-{container_id}")
        with suppress(FileNotFoundError):
            paths.directory.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        self.remove_bundle(container_id)


def _read(directory: Path) -> tuple[ContainerRecord, StoredState] | None:
    try:
        record = decode_json(read_bounded(directory / "container.json", MAX_FILE), ContainerRecord)
        state = decode_json(read_bounded(directory / "state.json", MAX_FILE), StoredState)
    except (OSError, ValueError):  # ValueError: malformed, or too large
        return None
    return (record, state) if record.id == directory.name else None

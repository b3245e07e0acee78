"""What is kept on disk of plain containers for the next daemon. Decides only whose namespace is still there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.files import write_private

from .core.plain import PlainRecord

_log = logging.getLogger(__name__)


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Every container, and the paths of their namespaces."""

    containers: tuple[PlainRecord, ...] = ()
    paths: dict[str, str] = {}


class PlainFile:
    """One file, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saving = asyncio.Lock()

    def load(self) -> tuple[dict[str, PlainRecord], dict[str, str]]:
        """Records and namespaces' paths by container, without those whose namespace died with the host. Blocking."""
        try:
            kept = decode_json(self._path.read_bytes(), _Kept)
        except FileNotFoundError:
            kept = _Kept()
        except Malformed as error:
            _log.error("%s is damaged (%s): plain containers are to be attached again", self._path, error)
            kept = _Kept()
        paths = {container_id: path for container_id, path in kept.paths.items() if Path(path).exists()}
        records = {record.container_id: record for record in kept.containers if record.container_id in paths}
        return records, {container_id: paths[container_id] for container_id in records}

    async def save(self, records: Iterable[PlainRecord], paths: Mapping[str, str]) -> None:
        """What is there when its turn comes: a later call never writes something older."""
        async with self._saving:
            data = msgspec.json.encode(_Kept(containers=tuple(records), paths=dict(paths)))
            await asyncio.to_thread(write_private, self._path, data)

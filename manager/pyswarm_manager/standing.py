"""What a manager remembers beside its log: how far the log reached, who the members were, where they are reached.

`standing.json` is no part of consensus. It is written after what it tells of is durable, so it never claims more than
the log held at that moment: a log that ends before it was replaced by an older one (`rejoin` acts on that). Its members
and announcements are where a manager looks for the others when the log cannot tell, or tells addresses that are gone
(`whereabouts`). Losing the file loses no promise, so a disk that does not take it is only worth a line.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.files import write_private

_log = logging.getLogger(__name__)

MAX_FILE_BYTES = 1024 * 1024


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One manager's memory of its place."""

    raft_id: int = 0
    index: int = 0
    """An index that was applied, so committed and in this member's log on disk."""
    members: dict[int, str] = {}
    """Address by raft id, this manager's own included."""
    seeds: tuple[str, ...] = ()
    announcements: tuple[bytes, ...] = ()
    """Serialized `RaftAnnouncement`s, verified again when they are read."""

    @classmethod
    def load(cls, path: Path) -> Standing:
        """An empty one if there is none, or none that can be read."""
        try:
            with path.open("rb") as file:
                return decode_json(file.read(MAX_FILE_BYTES), cls)
        except FileNotFoundError:
            return cls()
        except (OSError, Malformed) as error:
            _log.warning("%s cannot be read (%s): going on without it", path, error)
            return cls()

    def save(self, path: Path) -> None:
        """Replace the file. Blocks; a disk without room is no reason to stop."""
        try:
            write_private(path, msgspec.json.encode(self))
        except OSError as error:
            _log.warning("%s cannot be written: %s", path, error.strerror or error)

"""Wakes those who wait for a directory's files to change: one inotify descriptor for the whole runtime."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyswarm_runtime import linux

_EVENT = struct.Struct("iIII")
_MASK = linux.IN_MODIFY | linux.IN_CREATE | linux.IN_MOVED_TO
_BUFFER = 64 * 1024


class DirectoryWatcher:
    """Events carry no content: a woken waiter looks for itself, so that merged or lost events do no harm."""

    def __init__(self) -> None:
        self._fd = linux.inotify_init()
        self._waiters: dict[int, set[asyncio.Event]] = {}
        asyncio.get_running_loop().add_reader(self._fd, self._on_readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        for events in self._waiters.values():
            for event in events:
                event.set()

    @contextmanager
    def watch(self, directory: Path) -> Iterator[asyncio.Event]:
        """The event is set at every change; the waiter clears it before it looks."""
        event = asyncio.Event()
        watch = linux.inotify_add_watch(self._fd, directory, _MASK)
        self._waiters.setdefault(watch, set()).add(event)
        try:
            yield event
        finally:
            events = self._waiters.get(watch, set())
            events.discard(event)
            if not events and self._fd >= 0:
                self._waiters.pop(watch, None)
                linux.inotify_remove_watch(self._fd, watch)

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, _BUFFER)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, _, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            for event in self._waiters.get(watch, ()):
                event.set()

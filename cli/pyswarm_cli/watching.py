"""A watch for commands that wait: read by a thread of its own, begun again when a manager goes away.

One thread reads the watch into a bounded queue, the caller's thread looks at what comes. Decides nothing about what is
waited for. `event_stream` shows a watch without waiting for anything.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pyswarm_cli.connection import Connection, answers, stream
from pyswarm_cli.failures import FromDaemon
from pyswarm_common import errors

T = TypeVar("T")

_QUEUE = 1000
RECONNECTS = 40
RECONNECT_DELAY_S = 0.25


def watched(connection: Connection, request: Any, look: Callable[[Events], T]) -> T:
    """What `look` returns. It reads everything, calls `standing`, and goes on with the events; all of it begins anew
    where events were lost, or a manager went away: the daemon finds another one, or the same one comes back."""
    failures = 0

    def standing() -> None:
        nonlocal failures
        failures = 0

    while True:
        try:
            with Events(connection, request, standing) as events:
                return look(events)
        except Resync:
            continue
        except FromDaemon as error:
            if not isinstance(error.refusal, errors.Unavailable) or failures >= RECONNECTS:
                raise
            failures += 1
            time.sleep(RECONNECT_DELAY_S)


class Resync(Exception):
    """The watch lost events: read everything again."""


class Events:
    """A watch, read by a thread of its own that ends with the `with` block."""

    def __init__(self, connection: Connection, request: Any, standing: Callable[[], None]) -> None:
        """`standing`: to be called once everything is read, so that the watch was of use."""
        self.standing = standing
        self._stream = stream(connection.watch.Watch, request)
        self._queue: queue.Queue[Any] = queue.Queue(_QUEUE)
        self._thread: threading.Thread = threading.Thread(target=self._read, name="watch", daemon=True)

    def __enter__(self) -> Events:
        self._thread.start()
        self.next(None)  # the first message says that the watch stands: what is read from now on is not missed
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.cancel()
        while self._thread.is_alive():
            self._drain()  # the thread may wait for room
            self._thread.join(0.05)

    def _drain(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()

    def _read(self) -> None:
        try:
            for response in answers(self._stream):
                self._queue.put(list(response.events))
            self._queue.put(FromDaemon(errors.Unavailable("the manager ended the watch; try again")))
        except FromDaemon as error:
            self._queue.put(error)

    def next(self, wait_s: float | None) -> list[Any]:
        """The next events; none when the time is over. Raises what ended the watch."""
        try:
            found = self._queue.get(timeout=wait_s)
        except queue.Empty:
            return []
        if isinstance(found, FromDaemon):
            if found.status == "OUT_OF_RANGE":
                raise Resync
            raise found
        return list(found)

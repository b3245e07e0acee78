"""The swarm's events for as long as somebody wants them: from a version or a time on, also over the end of a manager.

The shell around `views.events`. A stream that breaks is opened again where it ended, on whichever manager the daemon
finds. What the managers keep no longer cannot be shown: then that is said, what exists now is listed (action
`exists`), and the events go on from there. So whoever follows never believes in what is no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import click

from pyswarm.v1 import watch_pb2
from pyswarm_cli.connection import Connection, answers
from pyswarm_cli.failures import FromDaemon, one_line
from pyswarm_cli.listing import all_networks, all_nodes, all_services, all_tasks
from pyswarm_cli.output.rows import Row
from pyswarm_cli.patience import told
from pyswarm_cli.views import events as events_view
from pyswarm_common.codec import set_timestamp, timestamp
from pyswarm_common.errors import Unavailable

_RECONNECTS: Final = 40
_RECONNECT_DELAY_S: Final = 0.25
_SILENT: Final = "Still waiting for the daemon (is it stopped or very busy?) ..."
_MISSED: Final = (
    "Warning: some events were missed, as the managers keep only the latest: here is what exists now, and what happens "
    "from here on."
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to show."""

    kinds: tuple[str, ...] = ()
    since_version: int = 0
    since_time: float | None = None
    until: float | None = None
    passes: Callable[[Row], bool] = lambda row: True


def event_rows(connection: Connection, wanted: Wanted) -> Iterator[Row]:
    """Until `until`, or for ever. Raises FromDaemon when no manager answers for a while."""
    position, failures = _Position(wanted), 0
    while True:
        try:
            for response in _responses(connection, wanted, position):
                failures = 0
                yield from _rows(response, wanted)
                position.version = max(position.version, response.version)
            return
        except FromDaemon as error:
            if error.status == "DEADLINE_EXCEEDED" and wanted.until is not None:
                return
            if error.status == "OUT_OF_RANGE":
                click.echo(_MISSED, err=True)
                position.begin_anew()
                yield from _existing(connection, wanted, position)
                continue
            if not isinstance(error.refusal, Unavailable) or failures >= _RECONNECTS:
                raise _with_position(error, position) from None
            failures += 1
            time.sleep(_RECONNECT_DELAY_S)


class _Position:
    """Where the stream is to go on."""

    def __init__(self, wanted: Wanted) -> None:
        self.version = wanted.since_version
        self._since = wanted.since_time

    def begin_anew(self) -> None:
        """What was missed is not asked for again."""
        self.version, self._since = 0, None

    def request(self, wanted: Wanted) -> Any:
        request = watch_pb2.WatchRequest(
            kinds=[events_view.KINDS[kind] for kind in wanted.kinds],  # type: ignore[misc]  # plain numbers
            resume_from=self.version,
            no_follow=wanted.until is not None and wanted.until <= time.time(),
        )
        if not self.version and self._since is not None:
            set_timestamp(request.since, self._since)
        return request


def _responses(connection: Connection, wanted: Wanted, position: _Position) -> Iterator[Any]:
    request = position.request(wanted)
    left_s = None if wanted.until is None or request.no_follow else wanted.until - time.time()
    responses = answers(connection.watch.Watch(request, timeout=left_s))
    with told(_SILENT):
        first = next(responses, None)  # says at once where the stream begins
    if first is not None:
        yield first
        yield from responses


def _rows(response: Any, wanted: Wanted) -> Iterator[Row]:
    at = timestamp(response.time) if response.HasField("time") else time.time()
    if wanted.until is not None and at > wanted.until:
        return
    for event in response.events:
        yield from filter(wanted.passes, events_view.event_rows(event, at, response.version))


def _existing(connection: Connection, wanted: Wanted, position: _Position) -> Iterator[Row]:
    """What exists, of the kinds that can be listed, and from when on events are complete again."""
    begun = next(_responses(connection, wanted, position))
    position.version = begun.version
    lists: dict[str, Callable[[], list[Any]]] = {
        "node": lambda: all_nodes(connection),
        "network": lambda: all_networks(connection),
        "service": lambda: [service for service, _ in all_services(connection)],
        "task": lambda: all_tasks(connection),
    }
    for kind, items in lists.items():
        if not wanted.kinds or kind in wanted.kinds:
            rows = (events_view.existing_row(kind, item, begun.version) for item in items())
            yield from filter(wanted.passes, rows)


def _with_position(error: FromDaemon, position: _Position) -> FromDaemon:
    """So that whoever was interrupted can go on."""
    if not position.version:
        return error
    words = f"{one_line(str(error))}. To go on without a gap: pyswarm events --since v{position.version}"
    return FromDaemon(type(error.refusal)(words), error.status)

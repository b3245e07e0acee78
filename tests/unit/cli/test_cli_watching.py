"""Commands that wait by a watch begin it anew when a manager goes away, and do not try for ever."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pyswarm.v1 import watch_pb2
from pyswarm_cli import watching
from pyswarm_cli.failures import FromDaemon
from pyswarm_cli.watching import Events, Resync, watched
from pyswarm_common.errors import NotFound, Unavailable

GONE = FromDaemon(Unavailable("the manager is gone"))


class Stream:
    """A watch that stands, tells of one commit, and ends."""

    def __iter__(self) -> Iterator[watch_pb2.WatchResponse]:
        yield watch_pb2.WatchResponse()
        yield watch_pb2.WatchResponse(events=[watch_pb2.WatchEvent()])

    def cancel(self) -> None:
        """It has ended already."""


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(watching, "RECONNECT_DELAY_S", 0.0)
    return SimpleNamespace(watch=SimpleNamespace(Watch=lambda *_, **__: Stream()))


def test_it_begins_anew_and_reads_again(connection: Any) -> None:
    looks: list[int] = []

    def look(events: Events) -> str:
        looks.append(len(events.next(None)))
        if len(looks) == 1:
            raise Resync
        if len(looks) == 2:
            events.next(None)  # the watch has ended
        return "over"

    assert watched(connection, watch_pb2.WatchRequest(), look) == "over"
    assert looks == [1, 1, 1]


@pytest.mark.parametrize(("stands", "looks"), [(False, watching.RECONNECTS + 1), (True, 3 * watching.RECONNECTS)])
def test_who_never_gets_that_far_gives_up(connection: Any, stands: bool, looks: int) -> None:
    seen = 0

    def look(events: Events) -> None:
        nonlocal seen
        seen += 1
        if stands:
            events.standing()
        if not stands or seen < looks:
            raise GONE

    if stands:
        watched(connection, watch_pb2.WatchRequest(), look)
    else:
        with pytest.raises(FromDaemon):
            watched(connection, watch_pb2.WatchRequest(), look)
    assert seen == looks


def test_any_other_refusal_is_an_answer(connection: Any) -> None:
    def look(_: Events) -> None:
        raise FromDaemon(NotFound("no such node"))

    with pytest.raises(FromDaemon, match="no such node"):
        watched(connection, watch_pb2.WatchRequest(), look)

"""A change that somebody else overtook is made again on what is there now; nothing else is repeated."""

from __future__ import annotations

import pytest

from pyswarm_cli.failures import FromDaemon
from pyswarm_cli.overtaken import until_first
from pyswarm_common.errors import NotFound, OutOfSequence, PyswarmError


class Daemon:
    """Refuses so many times."""

    def __init__(self, refusals: int, refusal: PyswarmError | None = None) -> None:
        self.refusals, self.refusal = refusals, refusal or OutOfSequence("update out of sequence")
        self.asked = 0

    def write(self) -> int:
        self.asked += 1
        if self.asked <= self.refusals:
            raise FromDaemon(self.refusal)
        return self.asked


@pytest.mark.parametrize("refusals", [0, 1, 9])
def test_whoever_is_overtaken_tries_again(refusals: int) -> None:
    assert until_first(Daemon(refusals).write) == refusals + 1


def test_after_ten_times_the_refusal_is_told() -> None:
    daemon = Daemon(refusals=100)
    with pytest.raises(FromDaemon, match="out of sequence"):
        until_first(daemon.write)
    assert daemon.asked == 10


def test_any_other_refusal_is_told_at_once() -> None:
    daemon = Daemon(1, NotFound("no such node"))
    with pytest.raises(FromDaemon):
        until_first(daemon.write)
    assert daemon.asked == 1

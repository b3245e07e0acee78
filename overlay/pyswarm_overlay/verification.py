"""Keeps the kernel as wanted: hears of changes, looks, repairs, and says what was wrong.

Two ways lead to a look. Whoever changes something in one of our namespaces is heard at once, and that place is looked
at a moment later. And every place is looked at in turn, at bounded cost per second: what changes in silence within two
seconds, everything within a minute or so. A problem counts once it was seen twice, a moment apart: what is under way
in our own hands is none.

Never changes anything by itself: `Verified` parts observe and repair, each for its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pyswarm_common.errors import PyswarmError

from .core.suspects import Place, Round, Suspects
from .hearing import Hearing, listening
from .kernel.monitor import Change
from .reports import Finding, Report
from .verified import HOST_KEY, Verified

log = logging.getLogger(__name__)


_TICK_S = 0.5
_SILENT_PERIOD_S, _SILENT_PER_SECOND = 2.0, 1000.0
_FULL_PER_SECOND = 20.0
_LOOK_AGAIN_S = 0.4
_TRY_AGAIN_S = 2.0
_AT_ONCE = 4
_MAX_PROBLEMS = 50
_HOST: Place = ("host", HOST_KEY)


@dataclass(slots=True)
class Parts:
    """`heard`: changes in their namespaces are heard. `silent`: they look at what changes in silence, cheaply."""

    heard: Sequence[Verified]
    silent: Sequence[Verified]

    def at(self, place: Place) -> list[Verified]:
        kind, _key = place
        return [part for part in (*self.silent, *self.heard) if part.place == kind]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What verification asks of the host. `number`: by which the kernel calls the namespace of a place; None if there
    is none. `is_ours`: whether the sender of a change of rules there is us. `name`: of a place, for people. `sweep`:
    remove what belongs to nobody, and say what it was."""

    number: Callable[[Place], Awaitable[int | None]]
    is_ours: Callable[[Place, int], bool]
    name: Callable[[Place], str]
    sweep: Callable[[], Awaitable[list[str]]]


@dataclass(slots=True)
class Verification:
    """Owned by `OverlayHost`."""

    parts: Parts
    around: Surroundings
    _suspects: Suspects = field(default_factory=Suspects)
    _seen: dict[Place, frozenset[str]] = field(default_factory=dict)
    _numbers: dict[Place, int | None] = field(default_factory=dict)
    _said: dict[Place, frozenset[str]] = field(default_factory=dict)
    _repairs: int = 0

    async def check(self, *, repair: bool) -> Report:
        """Look at everything now, and repair it if asked to."""
        swept = await self.around.sweep() if repair else []
        places = self._places((*self.parts.heard, *self.parts.silent))
        seen = await _each(places, self._observe)
        suspected = [place for place, problems in seen.items() if problems]
        if suspected:
            await asyncio.sleep(_LOOK_AGAIN_S)
        again = await _each(suspected, self._observe)
        findings = [self._finding(_HOST, swept)] if swept else []
        for place in suspected:
            confirmed = tuple(problem for problem in again[place] if problem in seen[place])
            if confirmed:
                left = await self._repair(place) if repair else list(confirmed)
                findings.append(self._finding(place, confirmed, left))
        checked: dict[str, int] = {}
        for part in (*self.parts.heard, *self.parts.silent):
            for what, number in part.size().items():
                checked[what] = checked.get(what, 0) + number
        return Report(checked, tuple(findings), repairs=self._repairs)

    async def watch(self, period_s: float, is_busy: Callable[[], bool]) -> AsyncIterator[Finding]:
        """For ever: every problem, once it was repaired or could not be. One round through everything takes a period;
        while the host is busy there are no rounds, but changes are looked at all the same."""
        loop = asyncio.get_running_loop()
        silent, full = Round(_SILENT_PERIOD_S, _SILENT_PER_SECOND), Round(period_s, _FULL_PER_SECOND)
        async with listening() as hearing:
            before = swept = loop.time()
            while True:
                await self._number_places(loop.time())
                if not self._hear(hearing, loop.time()):
                    log.warning(
                        "networks: the kernel told of more changes than could be heard: everything is looked at"
                    )
                now = loop.time()
                for place in sorted(self._suspects.take(now)):  # networks before sandboxes, which stand on them
                    finding = await self._look(place, self.parts.at(place), now)
                    if finding is not None:
                        yield finding
                if not is_busy():
                    passed, before = now - before, now
                    await self._look_in_turn(silent, self.parts.silent, passed)
                    await self._look_in_turn(full, self.parts.heard, passed)
                    if now - swept >= period_s:
                        swept = now
                        strays = await self._sweep()
                        if strays:
                            yield self._finding(_HOST, strays)
                await hearing.wait(self._pause(loop.time()))

    def _pause(self, now: float) -> float:
        due = self._suspects.next_due()
        return _TICK_S if due is None else max(0.01, min(_TICK_S, due - now))

    async def _sweep(self) -> list[str]:
        try:
            return await self.around.sweep()
        except (PyswarmError, OSError) as error:
            return [f"what belongs to nobody cannot be removed: {error}"]

    async def _look_in_turn(self, turns: Round, parts: Sequence[Verified], passed_s: float) -> None:
        """What is found is looked at again soon, as if it had been heard."""
        now = asyncio.get_running_loop().time()
        for place in turns.take(self._places(parts), passed_s):
            for part in parts:
                if part.place == place[0] and await _observed(part, place[1]):
                    self._suspects.suspect(place, now)

    async def _look(self, place: Place, parts: Sequence[Verified], now: float) -> Finding | None:
        """The first time a problem is only noted; the second time it is repaired."""
        problems = await self._observe(place)
        confirmed = tuple(problem for problem in problems if problem in self._seen.get(place, ()))
        if not confirmed:
            self._seen.pop(place, None)
            if problems:
                self._seen[place] = frozenset(problems)
                self._suspects.again(place, now + _LOOK_AGAIN_S)
            else:
                self._said.pop(place, None)
            return None
        left = await self._repair(place)
        if left:
            self._seen[place] = frozenset(left)
            self._suspects.again(place, now + _TRY_AGAIN_S)
            if self._said.get(place) == frozenset(left):
                return None
            self._said[place] = frozenset(left)
        else:
            self._seen.pop(place, None)
            self._said.pop(place, None)
        return self._finding(place, confirmed, left)

    def _finding(self, place: Place, problems: Sequence[str], left: Sequence[str] = ()) -> Finding:
        most = slice(_MAX_PROBLEMS)
        self._repairs += not left
        return Finding(place, self.around.name(place), tuple(problems[most]), tuple(left[most]))

    async def _observe(self, place: Place) -> list[str]:
        found: list[str] = []
        for part in self.parts.at(place):
            found += await _observed(part, place[1])
        return found

    async def _repair(self, place: Place) -> list[str]:
        """What is still wrong afterwards."""
        left: list[str] = []
        for part in self.parts.at(place):
            if not await _observed(part, place[1]):
                continue
            try:
                await part.repair(place[1])
            except (PyswarmError, OSError) as error:
                left.append(f"cannot be repaired: {error}")
        return left + await self._observe(place)

    # -- hearing ---------------------------------------------------------------------------------------------------

    def _hear(self, hearing: Hearing, now: float) -> bool:
        """False when changes were lost."""
        changes = hearing.take()
        if changes is None:
            for suspect in self._places(self.parts.heard):
                self._suspects.suspect(suspect, now)
            return False
        if changes:
            place_of = {number: place for place, number in self._numbers.items() if number is not None}
            for change in changes:
                place = _HOST if change.place is None else place_of.get(change.place)
                if place is not None and self._matters(place, change):
                    self._suspects.suspect(place, now)
        return True

    def _matters(self, place: Place, change: Change) -> bool:
        """Nobody learns neighbours in a network's namespace: there, each of them is ours."""
        if change.is_learned:
            return place[0] == "network"
        return not (change.of_rules and self.around.is_ours(place, change.sender))

    async def _number_places(self, now: float) -> None:
        """A new place is looked at once, since what happened there before we could hear it went unheard."""
        places = self._places((*self.parts.heard, *self.parts.silent))
        if len(places) == len(self._numbers) and all(place in self._numbers for place in places):
            return
        gone = set(self._numbers).difference(places)
        for place in gone:
            del self._numbers[place]
            self._seen.pop(place, None)
            self._said.pop(place, None)
        self._suspects.keep(places)
        for place in places:
            if place not in self._numbers:
                self._numbers[place] = await self.around.number(place)
                self._suspects.suspect(place, now)

    def _places(self, parts: Iterable[Verified]) -> list[Place]:
        """Without doubles: the host, then networks, then sandboxes, since the later stand on the earlier."""
        found: dict[Place, None] = {}
        for kind in ("host", "network", "sandbox"):
            for part in parts:
                if part.place == kind:
                    found.update(((kind, key), None) for key in part.places())
        return list(found)


async def _observed(part: Verified, key: str) -> list[str]:
    """One that cannot be looked at (it is going, say) has that as its problem."""
    try:
        return await part.observe(key)
    except (PyswarmError, OSError) as error:
        return [f"cannot be looked at: {error}"]


async def _each(places: Sequence[Place], look: Callable[[Place], Awaitable[list[str]]]) -> dict[Place, list[str]]:
    """A few at a time."""
    found: dict[Place, list[str]] = {}
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(place: Place) -> None:
        async with slots:
            found[place] = await look(place)

    async with asyncio.TaskGroup() as group:
        for place in places:
            group.create_task(one(place))
    return found

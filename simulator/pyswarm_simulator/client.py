"""Clients outside the cluster: they ask managers, one after another, and know when they do not know.

A client of registers does one thing at a time and writes down what it asked and what it was told, for the judge of
linearizability. What is surely refused is no operation; what got no answer may have happened, now or later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pyswarm_common.errors import PyswarmError, Unavailable, Unknown
from pyswarm_simulator.linearizability import Kind, Operation
from pyswarm_simulator.switchboard import NoAnswer, Party, Switchboard
from pyswarm_simulator.world import World

CALL_TIMEOUT_S = 4.0
ASK_PAUSE_S = 0.2
_NOBODY_KNOWS = (Unknown, NoAnswer)


class Client:
    """Asks on behalf of somebody."""

    def __init__(self, world: World, board: Switchboard, party: Party) -> None:
        self._world, self._board, self._party = world, board, party

    async def once(self, address: str, method: str, question: Any) -> Any:
        """Ask one manager, once."""
        return await self._board.call(self._party, address, method, question, CALL_TIMEOUT_S)

    async def until_led(self, addresses: Sequence[str], method: str, question: Any, patience_s: float) -> Any:
        """Ask until the leader answers; raises its refusal, or Unavailable when patience ends."""
        deadline = self._world.now + patience_s
        while self._world.now < deadline:
            for address in self._world.rng.sample(list(addresses), len(addresses)):
                try:
                    return await self.once(address, method, question)
                except (Unavailable, NoAnswer, Unknown):
                    continue
            await asyncio.sleep(ASK_PAUSE_S)
        raise Unavailable("no leader answered")


class RegisterClient:
    """Reads and writes the labels of a few services, at any manager."""

    def __init__(self, client: Client, world: World, number: int, history: list[Operation]) -> None:
        self._client, self._world, self._number, self._history = client, world, number, history
        self._written = 0
        self._last_read: dict[str, str | None] = {}

    async def run(self, keys: Sequence[str], addresses: Callable[[], Sequence[str]], pause_s: float) -> None:
        """For ever."""
        rng = self._world.rng
        while True:
            await asyncio.sleep(rng.expovariate(1 / pause_s))
            key, address = rng.choice(keys), rng.choice(addresses())
            await rng.choices((self._read, self._write, self._swap), (5, 3, 2))[0](key, address)

    async def _read(self, key: str, address: str) -> None:
        called = self._world.now
        try:
            found = await self._client.once(address, "ReadLabel", key)
        except PyswarmError:
            return  # an unanswered read says nothing
        self._last_read[key] = found
        self._note(Kind.READ, key, called, self._world.now, result=found)

    async def _write(self, key: str, address: str) -> None:
        value = self._new_value()
        await self._change(address, "WriteLabel", (key, value), partial(self._note, Kind.WRITE, key, value=value))

    async def _swap(self, key: str, address: str) -> None:
        """Set it if it still is what this client read last."""
        value, expected = self._new_value(), self._last_read.get(key)
        note = partial(self._note, Kind.COMPARE_AND_SET, key, value=value, expected=expected)
        await self._change(address, "SwapLabel", (key, expected, value), note)

    def _new_value(self) -> str:
        self._written += 1
        return f"{self._number}.{self._written}"

    async def _change(self, address: str, method: str, question: Any, note: Callable[..., None]) -> None:
        """Ask for it, and note it unless it was surely not made."""
        called = self._world.now
        try:
            answer = await self._client.once(address, method, question)
        except _NOBODY_KNOWS:
            note(called, None)
        except asyncio.CancelledError:  # the run ends while it waits
            note(called, None)
            raise
        except PyswarmError:
            return
        else:
            note(called, self._world.now, result=answer)

    def _note(
        self,
        kind: Kind,
        key: str,
        called: float,
        returned: float | None,
        *,
        value: str | None = None,
        expected: str | None = None,
        result: Any = None,
    ) -> None:
        self._history.append(Operation(self._number, called, returned, kind, key, value, result, expected))

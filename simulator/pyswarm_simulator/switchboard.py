"""Who listens at which address, and calls with one question and one answer. The answer may never come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pyswarm_common.errors import PyswarmError, Unavailable
from pyswarm_simulator.network import RETRY_S, Network, host_at
from pyswarm_simulator.world import ProcessLoop

Handler = Callable[[str, Any], Awaitable[Any]]
"""(the caller's host, the question) -> the answer."""


class NoAnswer(PyswarmError):
    """The connection broke, or time was up: whether the question was acted on is not known."""


@dataclass(frozen=True, slots=True)
class Party:
    """A process on a host."""

    host: str
    loop: ProcessLoop


@dataclass(slots=True)
class Endpoint:
    """What listens at an address."""

    party: Party
    unary: dict[str, Handler] = field(default_factory=dict)
    session: Callable[[AsyncIterator[Any], Any], AsyncIterator[bytes]] | None = None

    @property
    def loop(self) -> ProcessLoop:
        return self.party.loop


class Switchboard:
    """All addresses of a run."""

    def __init__(self, network: Network, on_bug: Callable[[str, BaseException], None]) -> None:
        """`on_bug` is told of an answer that failed in a way that is no refusal."""
        self._network, self._on_bug = network, on_bug
        self._endpoints: dict[str, Endpoint] = {}

    def listen(self, address: str, endpoint: Endpoint) -> None:
        """From now on, until its process ends or another listens there."""
        self._endpoints[address] = endpoint

    def find(self, address: str) -> Endpoint | None:
        """What listens there now."""
        endpoint = self._endpoints.get(address)
        return endpoint if endpoint is not None and endpoint.loop.is_alive else None

    async def call(self, caller: Party, address: str, method: str, question: Any, timeout_s: float) -> Any:
        """Ask; raises what the other side refuses with, Unavailable if nobody listens, NoAnswer."""
        answered: asyncio.Future[Any] = caller.loop.create_future()
        self._post(caller.host, host_at(address), lambda: self._arrive(caller, address, method, question, answered))
        try:
            async with asyncio.timeout(timeout_s):
                return await answered
        except TimeoutError:
            raise NoAnswer(f"{address} did not answer within {timeout_s:g} s") from None

    def _arrive(self, caller: Party, address: str, method: str, question: Any, answered: asyncio.Future[Any]) -> None:
        endpoint = self.find(address)
        target = host_at(address)
        handler = None if endpoint is None else endpoint.unary.get(method)
        if endpoint is None or handler is None:
            self._post(target, caller.host, lambda: _settle(caller, answered, Unavailable("connection refused")))
            return
        coroutine = handler(caller.host, question)
        task = endpoint.loop.spawn(_outcome(coroutine))

        def answer(done: asyncio.Task[Any]) -> None:
            outcome = self._outcome_of(method, done)
            self._post(target, caller.host, lambda: _settle(caller, answered, outcome))

        task.add_done_callback(answer)

    def _outcome_of(self, method: str, done: asyncio.Task[Any]) -> Any:
        if done.cancelled():
            return NoAnswer("the connection broke")
        failure = done.exception()
        if failure is not None:
            self._on_bug(method, failure)
            return NoAnswer("internal error")
        return done.result()

    def _post(self, sender: str, receiver: str, arrive: Callable[[], None]) -> None:
        """Held up by a cut, as TCP is; never lost otherwise."""
        world = self._network.world

        def try_again() -> None:
            if self._network.is_cut(sender, receiver):
                world.after_s(RETRY_S, try_again)
            else:
                arrive()

        world.after_s(self._network.delay(), try_again)


async def _outcome(coroutine: Awaitable[Any]) -> Any:
    """Refusals are answers."""
    try:
        return await coroutine
    except PyswarmError as error:
        return error


def _settle(caller: Party, answered: asyncio.Future[Any], outcome: Any) -> None:
    if not caller.loop.is_alive or answered.done():
        return
    if isinstance(outcome, PyswarmError):
        answered.set_exception(outcome)
    else:
        answered.set_result(outcome)

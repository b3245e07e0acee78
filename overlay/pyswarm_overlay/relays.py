"""The daemon's side of the relay: one process for all ports of this host that speak the PROXY protocol.

It is started when the first such port is wanted, told all that is wanted each time something changes, and found again
by the next daemon. What it does not answer in time is asked of a new one.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from pyswarm_common.errors import Unavailable

from .relay.wanted import MAX_LINE, Answer, Wanted

log = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S = 5.0
_START_TIMEOUT_S = 20.0
_POLL_S = 0.02
_NOTHING = Wanted()


class Relays:
    """Owned by the publisher, which calls it with its own lock held."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "relay.sock"
        self._told: Wanted | None = None
        self._started: subprocess.Popen[bytes] | None = None
        """The one that we started, to be reaped once it has ended."""

    async def apply(self, wanted: Wanted, *, again: bool = False) -> None:
        """Have the relay do it; `again`: even if it was told so before. Raises Unavailable."""
        if self._started is not None and self._started.poll() is not None:
            self._started, self._told = None, None
        if wanted == self._told and not again:
            return
        if wanted == _NOTHING and not self._path.exists():
            self._told = wanted
            return
        answer = await self._ask(wanted)
        if answer is None and wanted != _NOTHING:
            await self._start()
            answer = await self._ask(wanted)
            if answer is None:
                raise Unavailable("the process that speaks the PROXY protocol does not answer")
        self._told = wanted
        if answer is not None and answer.problems:
            self._told = None  # to be tried again
            raise Unavailable(f"ports with the PROXY protocol do not all work: {'; '.join(answer.problems)}")

    async def is_there(self) -> bool:
        """Whether somebody listens at its socket."""
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                _reader, writer = await asyncio.open_unix_connection(self._path)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def _ask(self, wanted: Wanted) -> Answer | None:
        """None when there is no relay, or none that understands us."""
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE)
                try:
                    writer.write(msgspec.json.encode(wanted) + b"\n")
                    line = await reader.readline()
                finally:
                    writer.close()
            return msgspec.json.decode(line, type=Answer)
        except (OSError, TimeoutError, ValueError, msgspec.MsgspecError):
            return None

    async def _start(self) -> None:
        """In a session of its own, so that it stays when we go."""
        with suppress(OSError):
            self._path.unlink()
        command = [sys.executable, "-m", "pyswarm_overlay.relay", str(self._path)]
        nothing = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=nothing, stdout=nothing, start_new_session=True)  # noqa: ASYNC220
        self._started = process
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while not self._path.exists():
                    if process.poll() is not None:
                        raise Unavailable("the process that speaks the PROXY protocol ended as it began")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            process.kill()
            raise Unavailable("the process that speaks the PROXY protocol could not be started") from None
        log.info("a process for ports with the PROXY protocol was started: %d", process.pid)

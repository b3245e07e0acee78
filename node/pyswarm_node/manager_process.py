"""The manager as a child process: started, watched, started again with growing pauses, and stopped.

It dies with the daemon (see `child`), so that no manager outlives the one that would restart it. A manager that says
that it was removed from the cluster is not started again; what follows is the business of `roles`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pyswarm_common.errors import FailedPrecondition, Unavailable
from pyswarm_common.identity.locks import LockKey
from pyswarm_manager.main import EXIT_REMOVED

from .paths import Options

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_SETTLED_AFTER_S = 10.0  # a run this long makes the next pause short again
_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.02
_MAX_LINE_BYTES = 64 * 1024
_LOG_PREFIX = re.compile(r"^\S+ \S+ [A-Z]+ [\w.]+: ")


class ManagerProcess:
    """At most one child. `start` keeps it running until `stop`."""

    def __init__(
        self,
        options: Options,
        program: Sequence[str] = (sys.executable, "-m", "pyswarm_manager"),
        master: Callable[[], LockKey | None] = lambda: None,
        others: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """`master` opens the manager's files where autolock has locked them; `others`: managers that the agent knows,
        for one that has lost its log."""
        self._options = options
        self._others = others
        self._master = master
        self._program = program
        self._supervisor: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._last_lines: deque[str] = deque(maxlen=5)
        self.is_removed = False

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def is_wanted(self) -> bool:
        return self._supervisor is not None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None and self.is_running else 0

    def start(self) -> None:
        """Keep it running from now on."""
        assert self._supervisor is None
        self.is_removed = False
        self._supervisor = asyncio.create_task(self._supervise())

    async def start_and_wait(self, is_ready: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        """Start it for the first time; a failure is the caller's (in the manager's own words), not restarted."""
        assert self._supervisor is None
        self._last_lines.clear()
        self.is_removed = False
        await self._spawn()
        try:
            await self._wait_ready(is_ready, timeout_s)
        except BaseException:
            await self.stop()
            raise
        self._supervisor = asyncio.create_task(self._supervise())

    async def _wait_ready(self, is_ready: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not await is_ready():
            if not self.is_running:
                await self._end_of_output()
                raise FailedPrecondition(self._reason())
            if time.monotonic() > deadline:
                raise Unavailable(f"the manager did not get ready within {timeout_s:g} s: {self._reason()}")
            await asyncio.sleep(_POLL_S)

    def _reason(self) -> str:
        """Its last words, without the log's prefix."""
        last = self._last_lines[-1] if self._last_lines else "it said nothing"
        return _LOG_PREFIX.sub("", last)

    def reload(self) -> None:
        """The node's certificate is a new one."""
        self._signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Politely (it hands leadership over), then by force."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None
        process = self._process
        if process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            _log.warning("the manager does not stop: killing it")
            self._signal(signal.SIGKILL)
            await process.wait()
        await self._end_of_output()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _supervise(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            started_at = time.monotonic()
            if self._process is None:
                await self._spawn()
            assert self._process is not None
            code = await self._process.wait()
            await self._end_of_output()
            self._process = None
            if code == EXIT_REMOVED:
                _log.warning("the manager was removed from the cluster: it is not started again")
                self.is_removed = True
                return
            if time.monotonic() - started_at > _SETTLED_AFTER_S:
                pause_s = _FIRST_PAUSE_S
            _log.warning("the manager ended (%s): starting it again in %.1f s", _how(code), pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _spawn(self) -> None:
        options = self._options
        options.manager.socket.unlink(missing_ok=True)
        wrapper = Path(__file__).with_name("child.py")
        places = ["--state-dir", str(options.state_dir), "--run-dir", str(options.run_dir)]
        master = self._master()
        argv = [*self._program, *places, "--log-level", options.log_level]
        for address in self._others():
            argv += ["--known-manager", address]
        if master is not None:
            argv.append("--locked")
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(wrapper), str(os.getpid()), *argv),
            stdin=asyncio.subprocess.DEVNULL if master is None else asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_MAX_LINE_BYTES,
        )
        if master is not None:
            _hand_over(self._process, master)
        self._reader = asyncio.create_task(self._relay(self._process))
        _log.info("manager started (pid %d)", self._process.pid)

    async def _end_of_output(self) -> None:
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _relay(self, process: asyncio.subprocess.Process) -> None:
        """Its log is part of ours; the last lines are kept, to say why it ended."""
        assert process.stderr is not None
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:  # longer than the limit: the reader has dropped it
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip("\n")
            self._last_lines.append(text)
            print(text, file=sys.stderr, flush=True)


def _hand_over(process: asyncio.subprocess.Process, master: LockKey) -> None:
    """By a pipe: what is in arguments or in the environment, others can read."""
    assert process.stdin is not None
    process.stdin.write(master.secret)
    process.stdin.close()


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

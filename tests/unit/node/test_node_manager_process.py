"""The manager as a child: its failure is told in its own words, its crash is mended, and it dies with the daemon."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pyswarm_common.errors import FailedPrecondition, Unavailable
from pyswarm_node import child
from pyswarm_node.manager_process import ManagerProcess
from pyswarm_node.paths import Options

RUNS = "import time; time.sleep(600)"
REFUSES = """import sys
print("2026-01-01 12:00:00,000 ERROR pyswarm_manager: cannot listen on x", file=sys.stderr)
sys.exit(1)"""
REMOVED = "import sys; sys.exit(3)"


def manager(tmp_path: Path, program: str) -> ManagerProcess:
    return ManagerProcess(Options(state_dir=tmp_path, run_dir=tmp_path), (sys.executable, "-S", "-c", program))


async def ready() -> bool:
    return True


async def never() -> bool:
    return False


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a child process has no event to wait for
            await asyncio.sleep(0.01)


async def test_a_refusal_at_the_first_start_is_the_callers(tmp_path: Path) -> None:
    process = manager(tmp_path, REFUSES)
    with pytest.raises(FailedPrecondition, match=r"^cannot listen on x$"):
        await process.start_and_wait(never, 20)
    assert not process.is_wanted
    assert not process.is_running


async def test_one_that_never_gets_ready_is_stopped(tmp_path: Path) -> None:
    process = manager(tmp_path, RUNS)
    with pytest.raises(Unavailable, match="did not get ready"):
        await process.start_and_wait(never, 0.2)
    assert not process.is_running


async def test_it_is_started_again_after_a_crash_and_stopped_for_good(tmp_path: Path) -> None:
    process = manager(tmp_path, RUNS)
    await process.start_and_wait(ready, 20)
    first = process.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: process.is_running and process.pid != first)
    second = process.pid
    await process.stop()
    assert not process.is_running
    assert not Path(f"/proc/{second}").exists()


async def test_one_that_was_removed_from_the_cluster_stays_away(tmp_path: Path) -> None:
    process = manager(tmp_path, REMOVED)
    process.start()
    await until(lambda: process.is_removed)
    await process.stop()


def test_it_dies_with_the_daemon(tmp_path: Path) -> None:
    """A stand-in for the daemon starts a child through the wrapper and is killed."""
    starter = (
        "import os, subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, {child.__file__!r}, str(os.getpid()), '/bin/sleep', '600'])\n"
        "print(p.pid, flush=True); time.sleep(600)\n"
    )
    daemon = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    pid = int(daemon.stdout.readline())
    descriptor = os.pidfd_open(pid)
    comm = Path(f"/proc/{pid}/comm")
    while comm.read_text().strip() != "sleep":  # until the wrapper has become the program
        os.sched_yield()
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    poll = select.poll()
    poll.register(descriptor)
    assert poll.poll(20_000), "the child outlives the daemon"
    os.close(descriptor)

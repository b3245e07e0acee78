"""Processes that are not only ours: told apart by pid and start time, watched and signalled through pidfds.

A pid alone may belong to another process by the time it is used; a pid with its start time does not, and a pidfd
never does.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from pyswarm_common.errors import InvalidArgument

_STATE_FIELD, _START_FIELD = 2, 21


def start_time(pid: int) -> int | None:
    """In clock ticks since boot; None where there is no such process, or only a zombie is left of it."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    # The fields before the command's closing bracket are two.
    return None if fields[_STATE_FIELD - 2] in ("Z", "X") else int(fields[_START_FIELD - 2])


def is_alive(pid: int, started: int | None) -> bool:
    now = start_time(pid)
    return now is not None and now == started


def open_process(pid: int, started: int | None) -> int | None:
    """A pidfd of exactly that process, or None where it is gone. `started` None: whoever has that pid now."""
    try:
        fd = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError, OverflowError):
        return None
    if started is None or start_time(pid) == started:
        return fd
    os.close(fd)
    return None


def send_signal(pid: int, started: int | None, number: int) -> bool:
    """Says whether the process was still there."""
    fd = open_process(pid, started)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def wait_gone(fd: int, timeout_s: float) -> bool:
    """Blocking: until the process of the pidfd has ended."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))


def kill_and_wait(pid: int, started: int | None, timeout_s: float = 10.0) -> None:
    fd = open_process(pid, started)
    if fd is None:
        return
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        wait_gone(fd, timeout_s)
    finally:
        os.close(fd)


def reap(pid: int) -> None:
    """Takes away the zombie of an ended child; a process that a former daemon started is not ours to reap."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def find_by_argument(programs: Collection[str], wanted: str) -> list[int]:
    """Pids of processes of these program names with that argument. Reads all of /proc: for repairs only."""
    needed = os.fsencode(wanted)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                if Path(os.fsdecode(arguments[0])).name in programs and needed in arguments:
                    found.append(int(entry.name))
    return found


def parse_signal(name: str) -> int:
    """`TERM`, `SIGTERM`, `15`, `SIGRTMIN+3`."""
    text = name.strip().upper().removeprefix("SIG")
    base, plus, offset = text.partition("+")
    with suppress(KeyError, ValueError):
        number = int(base) if base.isdigit() else signal.Signals[f"SIG{base}"].value
        number += int(offset) if plus else 0
        if 0 < number < signal.NSIG:
            return number
    raise InvalidArgument(f"Invalid signal: {name}")

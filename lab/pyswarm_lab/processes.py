"""Processes by identity, not by number: a pid together with its start time names one process for ever.

Never looks a process up by its name; the one search is by namespace or by the exact argument list that this package
gave it. Signals go through pidfds, so that a number used again is never hit.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

_PROC = Path("/proc")


class ProcessRef(msgspec.Struct, frozen=True):
    """One process: its pid in our namespace, and when it started (clock ticks since boot)."""

    pid: int
    start_time: int

    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        found = _stat(self.pid)
        return found is not None and found[1] == self.start_time and found[0] not in "ZX"


def _stat(pid: int) -> tuple[str, int] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def ticks_since_boot() -> int:
    """Now, in the unit of `ProcessRef.start_time`, rounded up."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")) + 1


def reference(pid: int) -> ProcessRef | None:
    """The process that has this pid now; None if there is none, or only a zombie."""
    found = _stat(pid)
    return None if found is None or found[0] in "ZX" else ProcessRef(pid, found[1])


@contextlib.contextmanager
def _opened(process: ProcessRef) -> Iterator[int | None]:
    """A pidfd of exactly this process, or None when it is gone."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        yield None
        return
    try:
        yield fd if process.is_alive() else None
    finally:
        os.close(fd)


def send_signal(process: ProcessRef, number: signal.Signals) -> bool:
    """Signal it; False when it is gone already."""
    with _opened(process) as fd:
        if fd is None:
            return False
        try:
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        return True


def wait_gone(process: ProcessRef, timeout_s: float) -> bool:
    """Wait until it has ended (for the first process of a pid namespace: until all in it have)."""
    with _opened(process) as fd:
        if fd is None:
            return True
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))


def all_pids() -> list[int]:
    """Every pid that can be seen, lowest first."""
    return sorted(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def namespace(pid: int, kind: str) -> str:
    """The namespace a process is in ("net:[4026531840]"), empty when it is gone."""
    try:
        return str((_PROC / str(pid) / "ns" / kind).readlink())
    except OSError:
        return ""


def arguments(pid: int) -> tuple[str, ...]:
    """The argument list of a process, empty when it is gone."""
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(part) for part in raw.rstrip(b"\0").split(b"\0")) if raw else ()


def in_pid_namespace(first: ProcessRef) -> list[ProcessRef]:
    """Every process that shares the pid namespace of `first`, without those of containers inside it."""
    wanted = namespace(first.pid, "pid")
    if not wanted or not first.is_alive():
        return []
    found = (reference(pid) for pid in all_pids() if namespace(pid, "pid") == wanted)
    return [process for process in found if process is not None]


def running(module: str, below: Path) -> list[ProcessRef]:
    """Every process that runs `-m module FOLDER…` with a folder that is `below` or inside it."""
    out = []
    for pid in all_pids():
        argv = arguments(pid)
        for option, name, folder in zip(argv, argv[1:], argv[2:], strict=False):
            if option == "-m" and name == module and Path(folder).is_relative_to(below):
                found = reference(pid)
                out += [found] if found is not None else []
    return out

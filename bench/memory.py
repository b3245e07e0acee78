"""What the processes of a lab host use: memory as proportional set size (PSS: shared pages count once), and CPU."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def host_memory(init_pid: int) -> dict[str, tuple[int, float]]:
    """(processes, MiB) by kind (pyswarmd, manager, conmon, container) of everything on the host."""
    out: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for directory in host_processes(init_pid):
        try:
            kind, pss = _kind(directory), _pss_mib(directory)
        except OSError:
            continue  # it ended meanwhile
        count, total = out[kind]
        out[kind] = (count + 1, total + pss)
    return dict(out)


def pss_mib(pid: int) -> float:
    """MiB of one process."""
    return round(_pss_mib(Path("/proc") / str(pid)), 1)


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, of one process."""
    fields = _stat(Path("/proc") / str(pid))
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def host_cpu_s(init_pid: int) -> float:
    """CPU seconds, user and system, of everything on the host, children that ended included."""
    ticks = 0
    for directory in host_processes(init_pid):
        try:
            fields = _stat(directory)
        except OSError:
            continue
        ticks += sum(int(fields[i]) for i in (11, 12, 13, 14))  # utime, stime, cutime, cstime
    return ticks / _TICKS_PER_S


def host_processes(init_pid: int) -> Iterator[Path]:
    """The /proc folders of all descendants of the host's first process: containers too, whatever their namespaces."""
    children: dict[int, list[int]] = defaultdict(list)
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                children[int(_stat(directory)[1])].append(int(directory.name))
            except OSError:
                continue
    waiting = list(children[init_pid])
    while waiting:
        pid = waiting.pop()
        waiting += children[pid]
        yield Path("/proc") / str(pid)


def _stat(directory: Path) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on."""
    return (directory / "stat").read_text().rpartition(")")[2].split()


def _kind(directory: Path) -> str:
    command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    if "pyswarm_manager" in command or "pyswarm-manager" in command:
        return "manager"
    if "pyswarmd" in command or "pyswarm_node" in command:
        return "pyswarmd"
    return "conmon" if "conmon" in command.split(" ", 1)[0] else "container"


def _pss_mib(directory: Path) -> float:
    for line in (directory / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0

"""What a container uses now, from its control group: cpu time and memory.

Only reads; what is not there (the container has just ended, a controller is not mounted) is no error but unknown.
Memory is without the page cache that the kernel would give back first, as docker counts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    cpu_ns: int
    """Since the container started."""
    memory_bytes: int


def read_usage(version: int, hierarchies: Sequence[Path], group: str) -> ContainerUsage | None:
    """Of the group with this path in every hierarchy; None if it is not known."""
    below = group.lstrip("/")
    try:
        if version == 2:
            return _read_v2(hierarchies[0] / below)
        by_controller = {name: path for path in hierarchies for name in path.name.split(",")}
        return _read_v1(by_controller["cpuacct"] / below, by_controller["memory"] / below)
    except (OSError, ValueError, LookupError):
        return None


def _read_v2(group: Path) -> ContainerUsage:
    cpu_us = _counts(group / "cpu.stat")["usage_usec"]
    cache = _counts(group / "memory.stat").get("inactive_file", 0)
    return ContainerUsage(cpu_us * 1000, max(0, _number(group / "memory.current") - cache))


def _read_v1(cpu: Path, memory: Path) -> ContainerUsage:
    cache = _counts(memory / "memory.stat").get("total_inactive_file", 0)
    used = max(0, _number(memory / "memory.usage_in_bytes") - cache)
    return ContainerUsage(_number(cpu / "cpuacct.usage"), used)


def _number(path: Path) -> int:
    return int(path.read_text())


def _counts(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}

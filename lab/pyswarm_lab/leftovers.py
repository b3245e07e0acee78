"""Looks for what a lab could have left behind: processes, mounts, namespaces, cgroups, interfaces, files.

Only looks; `pyswarm_lab.lab` removes. Namespaces are known by their inode numbers, taken while the lab still runs.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from pyswarm_lab import cgroups
from pyswarm_lab.layout import Layout
from pyswarm_lab.processes import ProcessRef, all_pids, arguments, namespace, reference, running, ticks_since_boot

KINDS = ("pid", "net", "mnt", "uts")
_SWITCH = "pyswarm_lab.switch_init"
INIT_MODULES = ("pyswarm_lab.host_init", _SWITCH)


class Inventory(msgspec.Struct, frozen=True):
    """What to look for once the lab is gone."""

    namespaces: frozenset[str] = frozenset()
    taken_at: int = 0
    """Clock ticks since boot. Who started later is not of the lab: the kernel uses the numbers of namespaces again."""


def first_processes(layout: Layout) -> list[ProcessRef]:
    """Every first process of this lab that runs, also those that no record tells of."""
    return [process for module in INIT_MODULES for process in running(module, layout.dir)]


def take_inventory(processes: list[ProcessRef]) -> Inventory:
    """The namespaces that the lab made: those of these processes and of all that share their pid namespace."""
    shared = _shared_namespaces(processes)
    firsts = {namespace(process.pid, "pid") for process in processes} - shared
    members = {process.pid for process in processes}
    members |= {pid for pid in all_pids() if namespace(pid, "pid") in firsts}
    found = {namespace(pid, kind) for pid in members for kind in KINDS}
    return Inventory(frozenset(found - shared), ticks_since_boot())


def _shared_namespaces(processes: list[ProcessRef]) -> set[str]:
    """What the lab has from the machine: ours, those of the machine's first process, and all but one of the switch's,
    which has only its network of its own (we may be in others by now)."""
    shared = {namespace(pid, kind) for pid in (os.getpid(), 1) for kind in KINDS}
    switches = [process.pid for process in processes if _SWITCH in arguments(process.pid)]
    return shared | {namespace(pid, kind) for pid in switches for kind in KINDS if kind != "net"} | {""}


def look(layout: Layout, inventory: Inventory) -> list[str]:
    """One sentence per thing that is still there; empty is clean."""
    return [
        *_processes(layout, inventory),
        *_mounts(layout, inventory),
        *_namespace_handles(inventory),
        *(f"cgroup {path}" for path in cgroups.existing(layout.cgroup())),
        *([f"folder {layout.dir}"] if layout.dir.exists() else []),
    ]


def _processes(layout: Layout, inventory: Inventory) -> list[str]:
    pids = {process.pid for process in first_processes(layout)}
    for pid in _old_pids(inventory):
        if any(namespace(pid, kind) in inventory.namespaces for kind in KINDS):
            pids.add(pid)
    return [f"process {pid} ({' '.join(arguments(pid))[:80]})" for pid in sorted(pids)]


def _mounts(layout: Layout, inventory: Inventory) -> list[str]:
    """Mounts of the lab's folder, and of its namespaces (which would keep those, and their interfaces, alive)."""
    out = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        root, target = line.split()[3:5]
        if Path(target).is_relative_to(layout.dir) or root in inventory.namespaces:
            out.append(f"mount {target}")
    return out


def _namespace_handles(inventory: Inventory) -> list[str]:
    """Open descriptors of the lab's namespaces in other processes: the one other way to keep a namespace alive."""
    out = []
    for pid in _old_pids(inventory):
        try:
            links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        out += [f"namespace {link} held by process {pid}" for link in links if link in inventory.namespaces]
    return out


def _old_pids(inventory: Inventory) -> list[int]:
    """Who ran already when the inventory was taken."""
    found = (reference(pid) for pid in all_pids())
    return [process.pid for process in found if process is not None and process.start_time <= inventory.taken_at]

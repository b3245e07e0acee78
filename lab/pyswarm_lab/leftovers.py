"""Looks for what a lab could have left behind: processes, mounts, namespaces, cgroups, interfaces, files.

Only looks; `pyswarm_lab.lab` removes. Namespaces are known by their inode numbers, taken while the lab still runs.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from pyswarm_lab import cgroups
from pyswarm_lab.layout import Layout
from pyswarm_lab.processes import ProcessRef, all_pids, arguments, namespace, running

KINDS = ("pid", "net", "mnt", "uts")
INIT_MODULES = ("pyswarm_lab.host_init", "pyswarm_lab.switch_init")


class Inventory(msgspec.Struct, frozen=True):
    """What to look for once the lab is gone."""

    namespaces: frozenset[str] = frozenset()


def first_processes(layout: Layout) -> list[ProcessRef]:
    """Every first process of this lab that runs, also those that no record tells of."""
    return [process for module in INIT_MODULES for process in running(module, layout.dir)]


def take_inventory(processes: list[ProcessRef]) -> Inventory:
    """The namespaces of these processes and of all that share their pid namespace, without the machine's own."""
    own = {namespace(os.getpid(), kind) for kind in KINDS}
    firsts = {namespace(process.pid, "pid") for process in processes} - own
    members = {process.pid for process in processes}
    members |= {pid for pid in all_pids() if namespace(pid, "pid") in firsts}
    found = {namespace(pid, kind) for pid in members for kind in KINDS}
    return Inventory(frozenset(found - own - {""}))


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
    for pid in all_pids():
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
    for pid in all_pids():
        try:
            links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        out += [f"namespace {link} held by process {pid}" for link in links if link in inventory.namespaces]
    return out

"""Starts first processes in new namespaces and holds the short conversation that brings them up.

The process is recorded before it is told to go on, so that a lab that dies at any moment leaves either a recorded
process or one that ends by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from pyswarm_lab.errors import LabError
from pyswarm_lab.processes import ProcessRef, reference


def start(kinds: str, module: str, arguments: tuple[str, ...], ready: Callable[[ProcessRef], None]) -> ProcessRef:
    """Start `python -m module arguments…` as first process of new namespaces.

    `ready` runs when it has set itself up and before it goes on: it records the process and plugs its network.
    """
    argv = [
        *(sys.executable, "-I", "-m", "pyswarm_lab.boot", kinds),
        *(sys.executable, "-I", "-m", module, *arguments),
    ]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=_environment()
    ) as boot:
        assert boot.stdin is not None
        assert boot.stdout is not None
        process = _process(_said(boot.stdout, "pid "))
        _said(boot.stdout, "mounted")
        ready(process)
        boot.stdin.write("go\n")
        boot.stdin.flush()
        _said(boot.stdout, "started")
    return process


def _environment() -> dict[str, str]:
    """A login's environment: pyswarm's own programs first in the path, nothing of who started the lab."""
    programs = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    return {"PATH": f"{programs}:{path}", "HOME": "/root", "LANG": "C.UTF-8", "TERM": os.environ.get("TERM", "dumb")}


def environment() -> dict[str, str]:
    """What commands run with inside a host."""
    return _environment()


def _said(lines: IO[str], expected: str) -> str:
    line = lines.readline().strip()
    if not line.startswith(expected):
        reason = line.removeprefix("error: ") or "its first process ended at once"
        raise LabError(f"The host cannot be started: {reason}.")
    return line.removeprefix(expected)


def _process(pid: str) -> ProcessRef:
    found = reference(int(pid))
    if found is None:
        raise LabError("The host cannot be started: its first process ended at once.")
    return found

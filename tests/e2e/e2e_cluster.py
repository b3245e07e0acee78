"""What the end-to-end tests share: a lab's cluster as a user sees it, and waiting."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pyswarm_lab import Lab, environment

T = TypeVar("T")
PYSWARM = str(Path(sys.executable).parent / "pyswarm")
IMAGE = "web:1"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The lab as a user sees it."""

    name: str

    @property
    def lab(self) -> Lab:
        return Lab(self.name)

    def cli(self, *argv: str, timeout_s: float = 180.0) -> subprocess.CompletedProcess[str]:
        """`pyswarm …` on this machine."""
        return subprocess.run(
            [PYSWARM, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment(),
            check=False,
        )

    def on(self, host: str, *argv: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A command inside a host; what `pyswarm lab exec` does, without its start-up."""
        return self.lab.exec(host, argv, timeout_s=timeout_s)

    def run(self, host: str, *argv: str, timeout_s: float = 120.0) -> str:
        """`pyswarm …` inside a host; it must succeed."""
        done = self.on(host, "pyswarm", *argv, timeout_s=timeout_s)
        assert done.returncode == 0, f"{host}$ pyswarm {' '.join(argv)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def refused(self, host: str, *argv: str) -> str:
        """`pyswarm …` inside a host; it must fail with one line, which is returned."""
        return one_line_of(self.on(host, "pyswarm", *argv))

    def nodes(self, host: str = "n1") -> dict[str, tuple[str, str]]:
        """(status, manager status) by host name; empty while the host cannot say."""
        done = self.on(host, "pyswarm", "node", "ls", "--format", "{{.Hostname}}|{{.Status}}|{{.ManagerStatus}}")
        rows = [line.split("|") for line in done.stdout.splitlines()] if done.returncode == 0 else []
        return {row[0]: (row[1], row[2]) for row in rows}

    def leader(self, host: str = "n1") -> str:
        """The leader's host name, empty while there is none."""
        return next((name for name, (_, status) in self.nodes(host).items() if status == "Leader"), "")

    def running(self, service: str, host: str = "n1") -> dict[str, str]:
        """Node by id of the tasks of a service that are wanted and run; empty while the host cannot say."""
        argv = ["service", "ps", service, "--no-trunc", "--filter", "desired-state=running"]
        done = self.on(host, "pyswarm", *argv, "--format", "{{.ID}} {{.Node}} {{.CurrentState}}")
        rows = [line.split() for line in done.stdout.splitlines()] if done.returncode == 0 else []
        return {row[0]: row[1] for row in rows if row[2] == "Running"}

    def state_of(self, host: str) -> str:
        """What the daemon says of its part in a swarm."""
        return self.run(host, "info", "--format", "{{.Swarm.LocalNodeState}}").strip()


def one_line_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that failed as it should."""
    assert done.returncode != 0, done.stdout
    # On a busy machine a command may say first that it still waits.
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("Still ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    return lines[0]


def eventually(condition: Callable[[], T], what: str, within_s: float = 60.0) -> T:
    """Wait for something that the cluster brings about by itself. The bound is a safety net, not a target."""
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"did not happen within {within_s:.0f} s: {what}"
        time.sleep(0.2)


def lab_with_clean_end(name: str, *options: str) -> Iterator[Cluster]:
    """A lab that is taken down by the CLI, whose word on what is left is then held to the kernel's."""
    cluster = Cluster(name)
    made = cluster.cli("lab", "up", "--name", name, *options)
    try:
        assert made.returncode == 0, made.stdout + made.stderr
        yield cluster
    finally:
        down = cluster.cli("lab", "down", "--name", name)
        assert down.returncode == 0, down.stdout + down.stderr
        assert not cluster.lab.exists()

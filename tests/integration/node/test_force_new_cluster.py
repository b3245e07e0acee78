"""Forcing a new cluster on a host whose daemon is killed on the way: doing it again ends well, and nothing is lost."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from pyswarm_lab.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

KEPT, LOST = "n1", "n2"
FORCE = ("pyswarm", "init", "--force-new-cluster", "--yes")
_WAIT_S = 60.0


def run(lab: Lab, *argv: str) -> subprocess.CompletedProcess[str]:
    return lab.exec(KEPT, argv, timeout_s=_WAIT_S)


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two managers, one of which is lost after it has acknowledged a network."""
    made = Lab.up(f"force-{uuid.uuid4().hex[:6]}", managers=2, workers=0)
    try:
        assert run(made, "pyswarm", "network", "create", "-d", "overlay", "kept").returncode == 0
        made.kill(LOST)
        eventually(lambda: run(made, "pyswarm", "network", "ls").returncode != 0, "the quorum is lost")
        yield made
    finally:
        assert made.down() == []


def is_leading(lab: Lab) -> bool:
    done = run(lab, "pyswarm", "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}")
    return done.returncode == 0 and f"{KEPT} Leader" in done.stdout.splitlines()


def kill_when(lab: Lab, condition: Callable[[], bool]) -> None:
    """Begin to force, kill the daemon (its manager dies with it) as soon as that holds, and start it again."""
    forcing = subprocess.Popen(lab.exec_argv(KEPT, FORCE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: condition() or forcing.poll() is not None, "the moment to kill")
        lab.kill(KEPT, "pyswarmd")
    finally:
        forcing.kill()
        forcing.wait()
    lab.start(KEPT)
    eventually(lambda: run(lab, "pyswarm", "info").returncode == 0, "the daemon answers again")


def test_killed_at_any_step_it_can_be_done_again(lab: Lab) -> None:
    manager = lab.processes(KEPT, "manager")
    kill_when(lab, lambda: lab.processes(KEPT, "manager") == [])  # stopped, to look at its log
    kill_when(lab, lambda: lab.processes(KEPT, "manager") not in ([], manager))  # started again
    for pause_s in (4.5, 7.0):  # somewhere on the way, or when it is done
        at = time.monotonic() + pause_s
        kill_when(lab, lambda at=at: time.monotonic() > at)
    done = run(lab, *FORCE)
    assert done.returncode == 0, done.stderr
    eventually(lambda: is_leading(lab), "the manager leads alone")
    networks = run(lab, "pyswarm", "network", "ls", "--format", "{{.Name}}").stdout.split()
    assert "kept" in networks
    assert run(lab, "pyswarm", "network", "create", "-d", "overlay", "after").returncode == 0
    peers = run(lab, "pyswarm", "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}").stdout
    assert f"{LOST} Down" in [line.rstrip() for line in peers.splitlines()]


def test_it_moves_to_another_address_with_everything_it_has(lab: Lab) -> None:
    """While the manager stands still and the agent begins again, nobody may take it for one that is missing."""
    eventually(lambda: is_leading(lab), "the manager leads alone")
    own = lab.host(KEPT).address
    other = f"{own.rpartition('.')[0]}.211"
    assert run(lab, "ip", "address", "add", f"{other}/24", "dev", "eth0").returncode == 0
    before = run(lab, "pyswarm", "operator", "raft", "list-peers", "--format", "{{.RaftID}}").stdout

    refused = run(lab, *FORCE, "--advertise-addr", "203.0.113.1")
    assert refused.returncode == 1
    assert "does not have the address" in refused.stderr
    moved = run(lab, *FORCE, "--advertise-addr", other)
    assert moved.returncode == 0, moved.stderr
    eventually(lambda: is_leading(lab), "the manager leads at its new address")
    template = "{{.RaftID}} {{.Address}}"
    peers = run(lab, "pyswarm", "operator", "raft", "list-peers", "--format", template).stdout
    assert peers == f"{before.strip()} {other}:2377\n"
    assert "kept" in run(lab, "pyswarm", "network", "ls", "--format", "{{.Name}}").stdout.split()

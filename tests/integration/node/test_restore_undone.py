"""A restore that fails, or whose daemon is killed on the way, leaves a machine that can do it again."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyswarm_lab.cluster import wait_daemons
from pyswarm_lab.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

HOST = "n1"
CLEAN = ["pyswarmd.lock", "runtime"]
_WAIT_S = 60.0
LISTEN = """echo $$ > /run/listener
exec python3 -c 'import socket, time; taken = socket.create_server(("", 2377)); time.sleep(600)'"""


def run(lab: Lab, *argv: str) -> subprocess.CompletedProcess[str]:
    return lab.exec(HOST, argv, timeout_s=_WAIT_S)


def done(lab: Lab, *argv: str) -> str:
    answer = run(lab, *argv)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab.up(f"undo-{uuid.uuid4().hex[:6]}", managers=1, workers=0, init=False)
    try:
        wait_daemons(made)
        yield made
    finally:
        assert made.down() == []


@pytest.fixture(scope="module")
def restore(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The command that restores a swarm which is no more."""
    folder: Path = tmp_path_factory.mktemp("kept")
    done(lab, "pyswarm", "init")
    done(lab, "pyswarm", "network", "create", "-d", "overlay", "kept")
    done(lab, "pyswarm", "backup", str(folder / "backup"))
    (folder / "key").write_text(done(lab, "pyswarm", "backup", "key", "-q"))
    done(lab, "pyswarm", "leave", "--force")
    return ("pyswarm", "restore", "--yes", "--key-file", str(folder / "key"), str(folder / "backup"))


def files(lab: Lab) -> list[str]:
    return done(lab, "ls", "-I", "backups", "/var/lib/pyswarm").split()


def test_a_restore_whose_manager_cannot_start_leaves_nothing(lab: Lab, restore: tuple[str, ...]) -> None:
    listener = subprocess.Popen(lab.exec_argv(HOST, ["sh", "-c", LISTEN]))
    try:
        eventually(lambda: ":2377" in run(lab, "ss", "-Hltn").stdout, "the port's taker")
        refused = run(lab, *restore)
    finally:
        run(lab, "kill", done(lab, "cat", "/run/listener").strip())
        listener.wait()
    assert refused.returncode == 1
    assert "cannot listen on 0.0.0.0:2377" in refused.stderr
    assert files(lab) == CLEAN
    assert lab.processes(HOST, "manager") == []


def test_a_daemon_that_is_killed_on_the_way_can_do_it_again(lab: Lab, restore: tuple[str, ...]) -> None:
    restoring = subprocess.Popen(lab.exec_argv(HOST, restore), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: lab.processes(HOST, "manager") or restoring.poll() is not None, "its manager starts")
        lab.kill(HOST, "pyswarmd")
    finally:
        restoring.kill()
        restoring.wait()
    lab.start(HOST)
    eventually(lambda: run(lab, "pyswarm", "info").returncode == 0, "the daemon answers again")
    assert files(lab) == CLEAN
    done(lab, *restore)
    assert "kept" in done(lab, "pyswarm", "network", "ls", "--format", "{{.Name}}").split()

"""Into containers from any manager: commands, a terminal, files in and out, and the record of it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_cluster import IMAGE, PYSWARM, Cluster, eventually

from pyswarm_lab import environment


@pytest.fixture(scope="module")
def box(cluster: Cluster) -> Iterator[Cluster]:
    """A service with one task on n5, a worker."""
    argv = ["--name", "box", "--constraint", "node.hostname==n5", "--env", "KIND=box", "--label", "a=b"]
    cluster.run("n1", "service", "create", *argv, IMAGE)
    yield cluster
    cluster.run("n1", "service", "rm", "box")


def exec_in(cluster: Cluster, host: str, *argv: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """`pyswarm …` inside a host, with an input."""
    return subprocess.run(
        [PYSWARM, "lab", "exec", "--name", cluster.name, host, "--", "pyswarm", *argv],
        input=data,
        capture_output=True,
        timeout=60,
        env=environment(),
        check=False,
    )


@pytest.mark.parametrize("manager", ["n1", "n2"])
def test_a_command_on_another_host_speaks_and_ends_as_here(box: Cluster, manager: str) -> None:
    script = "read line; echo out $line $KIND; echo err >&2; exit 7"
    done = exec_in(box, manager, "task", "exec", "-i", "box.1", "sh", "-c", script, data=b"hello\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"out hello box\n", b"err\n", 7)


def test_a_megabyte_goes_through_unchanged(box: Cluster) -> None:
    payload = os.urandom(1 << 20)
    done = exec_in(box, "n3", "service", "exec", "-i", "box", "cat", data=payload)
    assert done.stdout == payload


def test_options_are_dockers(box: Cluster) -> None:
    script = "id -u; pwd; echo $A"
    argv = ["task", "exec", "-u", "65534", "-w", "/tmp", "-e", "A=b c", "box.1", "sh", "-c", script]
    assert box.run("n1", *argv) == "65534\n/tmp\nb c\n"


def test_a_terminal_is_a_terminal(box: Cluster) -> None:
    """As in a shell that a person opens: prompts, echo, and the exit code of the last word."""
    child, terminal = pty.fork()
    if child == 0:
        argv = [PYSWARM, "lab", "exec", "--name", box.name, "n1", "--", "pyswarm", "task", "exec", "-it", "box.1", "sh"]
        os.execve(PYSWARM, argv, dict(environment()))
    try:
        os.write(terminal, b"test -t 0 && test -t 1 && echo two-$((1+1))-ttys\n")
        seen = _read_until(terminal, b"two-2-ttys")
        os.write(terminal, b"exit 5\n")
        _read_until(terminal, b"")
    finally:
        _, status = os.waitpid(child, 0)
        os.close(terminal)
    assert b"two-2-ttys" in seen
    assert os.waitstatus_to_exitcode(status) == 5


def _read_until(terminal: int, word: bytes) -> bytes:
    """What the terminal shows up to the word; to the end for an empty one."""
    seen, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline and (not word or word not in seen):
        if not select.select([terminal], [], [], 0.5)[0]:
            continue
        try:
            data = os.read(terminal, 4096)
        except OSError:
            break
        if not data:
            break
        seen += data
    return seen


def test_who_leaves_ends_the_command_unless_it_is_detached(box: Cluster) -> None:
    argv = [PYSWARM, "lab", "exec", "--name", box.name, "n1", "--", "pyswarm", "task", "exec", "box.1"]
    left = subprocess.Popen(
        [*argv, "sh", "-c", "echo begun; exec sleep 4713"],
        stdout=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    try:
        assert left.stdout is not None
        assert left.stdout.readline() == b"begun\n"
    finally:
        os.killpg(left.pid, signal.SIGKILL)  # the command in the host with it
        left.communicate(timeout=30)
    box.run("n1", "task", "exec", "-d", "box.1", "sleep", "4714")

    def sleeping() -> str:
        return box.run("n2", "task", "exec", "box.1", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")

    eventually(lambda: "4713" not in sleeping(), "the command whose caller was killed has ended")
    assert "sleep 4714" in sleeping()


def test_files_go_there_and_back(box: Cluster, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "file").write_bytes(os.urandom(300_000))
    (tree / "sub/run").write_text("#!/bin/sh\n")
    (tree / "sub/run").chmod(0o755)
    (tree / "link").symlink_to("file")
    box.run("n1", "task", "cp", str(tree), "box.1:/tmp")
    box.run("n2", "task", "cp", "box.1:/tmp/tree", str(tmp_path / "back"))
    assert (tmp_path / "back/file").read_bytes() == (tree / "file").read_bytes()
    assert os.access(tmp_path / "back/sub/run", os.X_OK)
    assert (tmp_path / "back/link").readlink() == Path("file")


def test_what_cannot_be_done_is_said_in_one_line(box: Cluster) -> None:
    done = exec_in(box, "n1", "task", "exec", "box.1", "no-such-program")
    assert done.returncode == 127
    assert b"OCI runtime exec failed" in done.stderr
    assert box.refused("n1", "task", "exec", "nobody", "true") == ("Error response from daemon: task nobody not found")
    assert "Could not find the file /none" in box.refused("n1", "task", "cp", "box.1:/none", "/tmp")
    assert "not a TTY" in box.refused("n1", "task", "exec", "-it", "box.1", "sh")


def test_entering_is_in_the_audit_log(box: Cluster) -> None:
    box.run("n2", "task", "exec", "box.1", "true")
    said = box.run("n1", "events", "--audit", "--since", "5m")
    assert "Exec/Announce: box.1 (" in said
    assert "): exec true" in said

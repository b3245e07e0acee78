"""Autolock on a whole host: locked after a restart, what runs goes on, and only the unlock key opens it."""

from __future__ import annotations

import base64
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyswarm_common.identity.locks import LOCKED, WRONG_KEY, LockKey, is_locked
from pyswarm_lab.cluster import wait_daemons
from pyswarm_lab.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

HOST = "n1"
_WAIT_S = 60.0
STATE = "var/lib/pyswarm"


class Host:
    """One of the lab's."""

    def __init__(self, lab: Lab, name: str = HOST) -> None:
        self.lab, self.name = lab, name

    def run(self, *argv: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.lab.exec(self.name, argv, stdin=stdin)

    def pyswarm(self, *argv: str, stdin: str | None = None) -> str:
        done = self.run("pyswarm", *argv, stdin=stdin)
        assert done.returncode == 0, f"{argv}: {done.stderr or done.stdout}\n{self.lab.log(self.name)[-3000:]}"
        return done.stdout

    def refused(self, *argv: str, stdin: str | None = None) -> str:
        done = self.run("pyswarm", *argv, stdin=stdin)
        assert done.returncode != 0
        # On a busy machine a command may say first that it still waits.
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("Still ")]
        return line

    def state(self) -> str:
        return self.pyswarm("info", "--format", "{{.Swarm.LocalNodeState}}").strip()

    def containers(self) -> set[str]:
        """What runs, by conmon's own account."""
        lines = self.run("ps", "-eo", "stat,args").stdout.splitlines()
        found = [line.split() for line in lines if "/conmon " in line and not line.startswith("Z")]
        return {words[words.index("-c") + 1] for words in found}

    def running(self) -> int:
        done = self.run("pyswarm", "service", "ps", "keep", "--format", "{{.CurrentState}}")
        return sum(line.startswith("Running") for line in done.stdout.splitlines()) if done.returncode == 0 else 0

    def file(self, name: str) -> Path:
        return self.lab.root(self.name) / STATE / name

    def wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + _WAIT_S
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what}\n{self.lab.log(self.name)[-3000:]}"
            time.sleep(0.1)

    def restart(self) -> None:
        self.lab.kill(self.name, "pyswarmd")
        self.wait(lambda: not self.lab.processes(self.name, "pyswarmd"), "the end of pyswarmd")
        self.lab.start(self.name)
        self.wait(lambda: self.run("pyswarm", "info").returncode == 0, "pyswarmd")

    def are_keys_locked(self) -> bool:
        return all(is_locked(self.file(name).read_bytes()) for name in ("certificates/node.key", "manager/raft-keys"))

    def unlock(self, key: str) -> None:
        self.pyswarm("unlock", stdin=f"{key}\n")
        self.wait(lambda: self.run("pyswarm", "node", "ls").returncode == 0, "the manager")


@pytest.fixture
def host() -> Iterator[Host]:
    lab = Lab.up(f"lock-{uuid.uuid4().hex[:6]}", managers=1, workers=1, init=False)
    try:
        wait_daemons(lab)
        yield Host(lab)
    finally:
        assert lab.down() == []


def key_in(text: str) -> str:
    return next(word for word in text.split() if word.startswith("SWMKEY-1-"))


def import_image(host: Host, directory: Path) -> None:
    root = directory / "rootfs"
    (root / "bin").mkdir(parents=True)
    subprocess.run(["cp", "/bin/busybox", str(root / "bin" / "sh")], check=True)
    subprocess.run(["cp", "/bin/busybox", str(root / "bin" / "sleep")], check=True)
    subprocess.run(["tar", "-C", str(root), "-cf", str(directory / "rootfs.tar"), "."], check=True)
    host.pyswarm("image", "import", str(directory / "rootfs.tar"), "busybox")


def test_a_locked_manager_waits_for_its_key_while_containers_run(host: Host, tmp_path: Path) -> None:
    key = key_in(host.pyswarm("init", "--autolock"))
    host.wait(host.are_keys_locked, "the locks")
    assert host.pyswarm("unlock-key", "-q").strip() == key
    import_image(host, tmp_path)
    host.pyswarm("service", "create", "-d", "--name", "keep", "--replicas", "2", "busybox", "sleep", "100000")
    host.wait(lambda: host.running() == 2, "two running tasks")
    before = host.containers()
    assert len(before) == 2

    host.restart()
    assert host.state() == "locked"
    for argv in (("node", "ls"), ("service", "ls"), ("unlock-key",), ("update", "--autolock=false")):
        assert LOCKED in host.refused(*argv)
    assert WRONG_KEY in host.refused("unlock", stdin=LockKey.generate().token())
    assert WRONG_KEY in host.refused("unlock", stdin="not a key")
    assert host.state() == "locked"
    assert host.containers() == before

    host.unlock(key)
    host.wait(lambda: host.state() == "active", "the session")
    host.wait(lambda: host.running() == 2, "the tasks' states")
    assert host.containers() == before
    assert "swarm is not locked" in host.refused("unlock", stdin=key)
    assert host.are_keys_locked()

    lock = host.file("certificates/node.lock").read_bytes()
    fresh = key_in(host.pyswarm("unlock-key", "--rotate"))
    host.wait(lambda: host.file("certificates/node.lock").read_bytes() != lock, "the new lock")
    host.restart()
    assert WRONG_KEY in host.refused("unlock", stdin=key)
    host.unlock(fresh)
    nothing_shows(host, (key, fresh))

    host.pyswarm("update", "--autolock=false")
    host.wait(lambda: not host.file("certificates/node.lock").exists(), "the end of the lock")
    assert not is_locked(host.file("certificates/node.key").read_bytes())
    assert "no unlock key is set" in host.refused("unlock-key")
    assert "cannot rotate because autolock is not turned on" in host.refused("unlock-key", "--rotate")
    host.restart()
    host.wait(lambda: host.running() == 2, "the manager without a lock")
    assert host.containers() == before


def test_who_has_lost_the_key_can_leave_and_begin_anew(host: Host) -> None:
    host.pyswarm("init", "--autolock")
    host.wait(host.are_keys_locked, "the locks")
    host.restart()
    assert host.state() == "locked"
    assert "Use `--force`" in host.refused("leave")
    host.pyswarm("leave", "--force")
    assert host.state() == "inactive"
    assert not host.file("certificates").exists()
    host.pyswarm("init")
    assert host.state() == "active"
    assert "no unlock key is set" in host.refused("unlock-key")


def test_a_machine_is_locked_while_it_is_a_manager(host: Host) -> None:
    other = Host(host.lab, "n2")
    host.pyswarm("init", "--autolock", "--advertise-addr", host.lab.host(HOST).address)
    token = host.pyswarm("join-token", "-q", "worker").strip()
    other.pyswarm("join", "--token", token, host.lab.host(HOST).address)
    assert not is_locked(other.file("certificates/node.key").read_bytes())
    host.pyswarm("node", "promote", "n2")
    host.wait(
        lambda: other.file("manager/raft-keys").exists() and other.are_keys_locked(), "the second manager's locks"
    )
    host.pyswarm("node", "demote", "n2")
    host.wait(lambda: not other.file("manager").exists(), "the end of the second manager")
    host.wait(lambda: not other.file("certificates/node.lock").exists(), "the end of its lock")
    assert not is_locked(other.file("certificates/node.key").read_bytes())
    other.restart()
    host.wait(lambda: other.state() == "active", "the worker, which needs no key")


def nothing_shows(host: Host, keys: tuple[str, ...]) -> None:
    """No key is in a file, in the log, in what `inspect` shows, or in a process's arguments and environment."""
    secrets = [key.encode() for key in keys]
    secrets += [base64.b64decode(key.removeprefix("SWMKEY-1-") + "=") for key in keys]
    files = [path for path in (host.lab.root(HOST) / STATE).rglob("*") if path.is_file()]
    content = {str(path): path.read_bytes() for path in files if "runtime" not in path.parts}
    content["log"] = host.lab.log(HOST).encode()
    content["node inspect"] = host.pyswarm("node", "inspect", "self").encode()
    for reference in (*host.lab.processes(HOST, "pyswarmd"), *host.lab.processes(HOST, "manager")):
        for name in ("cmdline", "environ"):
            content[f"{name} of {reference}"] = Path(f"/proc/{reference.pid}/{name}").read_bytes()
    assert len(content) > 10
    for where, found in content.items():
        assert not any(secret in found for secret in secrets), where

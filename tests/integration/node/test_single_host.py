"""One whole host for real: pyswarmd, its manager, containers and networks, driven by the CLI in a lab host."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyswarm_lab.cluster import wait_daemons
from pyswarm_lab.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

HOST = "n1"
_WAIT_S = 60.0
PAGE = 'hostname > /tmp/index.html; echo up; trap "exit 0" TERM; httpd -p 80 -h /tmp; while :; do sleep 1; done'
LISTEN = """echo $$ > /run/listener
exec python3 -c 'import socket, time; taken = [socket.create_server(("", port)) for port in (2377, 7946)]
time.sleep(600)'"""


class Host:
    """One lab host and what a user does on it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = self.lab.exec(HOST, argv)
        if check:
            assert done.returncode == 0, f"{argv}: {done.stderr or done.stdout}\n{self.lab.log(HOST)[-3000:]}"
        return done

    def pyswarm(self, *argv: str) -> str:
        return self.run("pyswarm", *argv).stdout

    def refused(self, *argv: str) -> str:
        done = self.run("pyswarm", *argv, check=False)
        assert done.returncode != 0
        # On a busy machine a command may say first that it still waits.
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("Still ")]
        return line

    def tasks(self, service: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.pyswarm("service", "ps", service, "--format", "json").splitlines()]

    def running(self, service: str) -> list[str]:
        """Ids of the service's running tasks."""
        return sorted(t["ID"] for t in self.tasks(service) if t["CurrentState"].startswith("Running"))

    def containers(self) -> set[str]:
        """What runs, by conmon's own account."""
        lines = self.run("ps", "-eo", "stat,args").stdout.splitlines()
        found = [line.split() for line in lines if "/conmon " in line and not line.startswith("Z")]
        return {words[words.index("-c") + 1] for words in found}

    def wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + _WAIT_S
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what}\n{self.lab.log(HOST)[-3000:]}"
            time.sleep(0.1)

    def stop_daemon(self, kind: str) -> None:
        self.lab.kill(HOST, kind)
        self.wait(lambda: not self.lab.processes(HOST, kind), f"the end of {kind}")

    def start_daemon(self) -> None:
        self.lab.start(HOST)
        self.wait(lambda: self.run("pyswarm", "node", "ls", check=False).returncode == 0, "pyswarmd")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system made of busybox alone."""
    path = tmp_path_factory.mktemp("image") / "rootfs.tar"
    with tarfile.open(path, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in ("sh", "httpd", "sleep", "hostname", "echo", "wget", "false", "cat"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name in ("tmp", "proc", "sys", "dev", "etc"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(directory)
        passwd = b"root:x:0:0:root:/:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, io.BytesIO(passwd))
    return path


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    lab = Lab.up(f"node-{uuid.uuid4().hex[:6]}", managers=1, workers=0, init=False)
    try:
        wait_daemons(lab)
        yield Host(lab)
    finally:
        assert lab.down() == []


@pytest.fixture
def member(host: Host, archive: Path) -> Iterator[Host]:
    """A cluster of one, with an image, left behind empty."""
    host.pyswarm("init")
    host.pyswarm("image", "import", str(archive), "busybox")
    yield host
    host.start_daemon()
    host.pyswarm("leave", "--force")
    assert host.containers() == set()
    assert "ps-" not in host.run("ip", "-br", "link").stdout
    assert host.run("ls", "-I", "backups", "/var/lib/pyswarm").stdout.split() == ["pyswarmd.lock", "runtime"]


def test_a_service_runs_scales_and_is_reached(member: Host) -> None:
    member.pyswarm("network", "create", "-d", "overlay", "web")
    member.pyswarm(
        *("service", "create", "-d", "--name", "web", "--replicas", "2", "--network", "web", "-p", "8080:80"),
        *("busybox", "sh", "-c", PAGE),
    )
    member.wait(lambda: len(member.running("web")) == 2, "two running tasks")
    member.pyswarm("service", "scale", "-d", "web=3")
    member.wait(lambda: len(member.running("web")) == 3, "three running tasks")

    addresses = ["127.0.0.1", member.lab.host(HOST).address] * 3

    def answers() -> set[str]:
        found = [member.run("curl", "-s", "-m", "2", f"http://{a}:8080/", check=False).stdout for a in addresses]
        return {answer.strip() for answer in found}

    member.wait(lambda: len(answers()) == 3, "answers of all three")
    lines = member.pyswarm("service", "logs", "web").splitlines()
    assert [line.rpartition("| ")[2] for line in lines] == ["up"] * 3
    member.pyswarm("service", "rm", "web")
    member.wait(lambda: not member.containers(), "the end of the containers")
    assert member.pyswarm("network", "rm", "web").strip() == "web"


def test_a_killed_daemon_takes_its_containers_up_again(member: Host) -> None:
    member.pyswarm("service", "create", "-d", "--name", "keep", "--replicas", "3", "busybox", "sh", "-c", PAGE)
    member.wait(lambda: len(member.running("keep")) == 3, "three running tasks")
    before, tasks = member.containers(), member.running("keep")
    member.stop_daemon("pyswarmd")
    member.wait(lambda: not member.lab.processes(HOST, "manager"), "the end of the manager with its daemon")
    assert member.containers() == before
    member.start_daemon()
    assert (member.containers(), member.running("keep")) == (before, tasks)
    member.pyswarm("service", "scale", "-d", "keep=1")
    member.wait(lambda: len(member.containers()) == 1, "one container")


def test_what_ended_meanwhile_is_replaced(member: Host) -> None:
    member.pyswarm(*("service", "create", "-d", "--name", "ends", "--restart-delay", "0s", "busybox", "sh", "-c", PAGE))
    member.wait(lambda: member.running("ends"), "a running task")
    (container,), (task,) = member.containers(), member.running("ends")
    member.stop_daemon("pyswarmd")
    pid = member.run("cat", f"/run/pyswarm/runtime/c/{container}/pid").stdout.strip()
    member.run("kill", "-9", pid)
    member.start_daemon()
    member.wait(lambda: member.running("ends") not in ([], [task]), "its replacement")
    (failed,) = [row for row in member.tasks("ends") if row["ID"] == task]
    assert failed["CurrentState"].startswith("Failed")
    assert "non-zero exit (137)" in failed["Error"]


def test_a_killed_manager_comes_back_and_touches_no_container(member: Host) -> None:
    member.pyswarm("service", "create", "-d", "--name", "stays", "busybox", "sh", "-c", PAGE)
    member.wait(lambda: member.running("stays"), "a running task")
    before = member.containers()
    member.lab.kill(HOST, "manager")
    member.wait(lambda: member.run("pyswarm", "node", "ls", check=False).returncode == 0, "the manager")
    member.wait(lambda: len(member.running("stays")) == 1, "the task")
    assert member.containers() == before


@pytest.mark.parametrize("after_s", [0.15, 0.4, 0.8])
def test_a_daemon_killed_in_the_middle_of_starting_many(member: Host, after_s: float) -> None:
    """Whatever was half made is finished or removed: in the end there is exactly what was asked for."""
    member.pyswarm("network", "create", "-d", "overlay", "many")
    options = ["--network", "many", "--stop-signal", "SIGKILL", "--restart-delay", "0s"]
    member.pyswarm(
        *("service", "create", "-d", "--name", "many", "--replicas", "25", *options), "busybox", "sleep", "999"
    )
    time.sleep(after_s)  # not waiting for anything: where it is hit is left to chance
    member.stop_daemon("pyswarmd")
    member.start_daemon()
    member.wait(lambda: len(member.running("many")) == 25, "all of them")
    member.wait(lambda: len(member.containers()) == 25, "no more than them")
    sandboxes = member.run("ls", "/var/lib/pyswarm/network/sandboxes").stdout.split()
    assert len(sandboxes) == 25
    member.pyswarm("service", "rm", "many")
    member.wait(lambda: not member.containers(), "the end of the containers")
    member.wait(lambda: not member.run("ls", "/var/lib/pyswarm/network/sandboxes").stdout, "the end of the sandboxes")
    member.wait(lambda: not member.run("ls", "/run/pyswarm/network/sandboxes", check=False).stdout, "their namespaces")


def test_a_crash_while_leaving_is_swept_up_at_the_next_start(member: Host) -> None:
    """As if the daemon had died right after it had decided that it is no member any more."""
    member.pyswarm("network", "create", "-d", "overlay", "left")
    member.pyswarm("service", "create", "-d", "--name", "left", "--network", "left", "busybox", "sleep", "999")
    member.wait(lambda: member.running("left"), "a running task")
    member.stop_daemon("pyswarmd")
    member.run("rm", "/var/lib/pyswarm/node.json")
    member.lab.start(HOST)
    member.wait(lambda: "not part of a swarm" in member.run("pyswarm", "leave", check=False).stderr, "pyswarmd")
    assert member.containers() == set()
    assert member.run("ls", "-I", "backups", "/var/lib/pyswarm").stdout.split() == ["pyswarmd.lock", "runtime"]
    assert "ps-" not in member.run("ip", "-br", "link").stdout
    member.pyswarm("init")


def test_after_a_power_cut_the_tasks_run_again(member: Host) -> None:
    member.pyswarm(
        *("service", "create", "-d", "--name", "back", "--replicas", "2", "--restart-delay", "0s"),
        *("busybox", "sleep", "999"),
    )
    member.wait(lambda: len(member.running("back")) == 2, "two running tasks")
    before = member.running("back")
    member.lab.kill(HOST)
    member.start_daemon()
    member.wait(lambda: len(member.running("back")) == 2 and member.running("back") != before, "their replacements")
    errors = [row["Error"] for row in member.tasks("back") if row["ID"] in before]
    assert all(error for error in errors), errors


def test_an_image_that_nobody_has_is_said(member: Host) -> None:
    member.pyswarm("service", "create", "-d", "--name", "none", "nothere")
    member.wait(lambda: any("No such image: nothere" in row["Error"] for row in member.tasks("none")), "the reason")


def test_refusals_are_one_line_and_leave_nothing(host: Host) -> None:
    assert "This node is not part of a swarm" in host.refused("leave")
    assert 'Use "pyswarm init" or "pyswarm join"' in host.refused("service", "ls")
    assert "could not find network interface or address" in host.refused("init", "--advertise-addr", "nope0")
    assert "invalid join token" in host.refused("join", "--token", "x", "127.0.0.1:2377")
    token = f"SWMTKN-1-{'0' * 50}-{'0' * 25}"
    assert "could not reach a manager at 127.0.0.1:2377" in host.refused("join", "--token", token, "127.0.0.1")
    # nsenter does not pass signals on to what it runs in another pid namespace, so that says its own pid there.
    listener = subprocess.Popen(host.lab.exec_argv(HOST, ["sh", "-c", LISTEN]))
    try:
        host.wait(lambda: ":2377" in host.run("ss", "-Hltn").stdout, "the port's taker")
        assert "cannot listen on 0.0.0.0:2377" in host.refused("init")
        assert "cannot listen on 0.0.0.0:7946" in host.refused("init", "--listen-addr", "0.0.0.0:3377")
    finally:
        host.run("kill", host.run("cat", "/run/listener").stdout.strip())
        listener.wait()
    assert host.run("ls", "-I", "backups", "/var/lib/pyswarm").stdout.split() == ["pyswarmd.lock", "runtime"]
    assert host.lab.processes(HOST, "manager") == []
    second = host.run("pyswarmd", check=False)
    assert second.returncode == 1
    assert "another pyswarmd" in second.stderr
    host.pyswarm("init")
    try:
        assert "already part of a swarm" in host.refused("init")
        assert "Removing the last manager erases all current state" in host.refused("leave")
    finally:
        host.pyswarm("leave", "--force")

"""A host that is left alone for long: what goes wrong beside the cluster is noticed and made good, by itself.

The daemon verifies its networks every second here, and its idea of the time can be set ahead through a file, so that a
certificate is renewed by the clock: managers issue none for less than an hour.
"""

from __future__ import annotations

import io
import ssl
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pyswarm_lab.cluster import wait_daemons
from pyswarm_lab.lab import Lab, default_daemon
from pyswarm_lab.layout import Layout

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

HOST = "n1"
_WAIT_S = 60.0
AHEAD = "/run/pyswarm/ahead"
DAEMON = f'''
import time, types
from pathlib import Path
import pyswarm_node.role_steps as steps
from pyswarm_node.main import main

def now():
    try:
        return time.time() + float(Path("{AHEAD}").read_text())
    except FileNotFoundError:
        return time.time()

steps.time = types.SimpleNamespace(time=now)
main()
'''
SERVED = "import ssl, sys; print(ssl.get_server_certificate(('127.0.0.1', int(sys.argv[1]))))"
LISTEN = """echo $$ > /run/listener
exec python3 -c 'import socket, time; taken = socket.create_server(("", 8080)); time.sleep(600)'"""
PAGE = "echo open files $(ulimit -Sn) $(ulimit -Hn); hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp"


class Host:
    """One lab host and what a user does on it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def run(self, *argv: str, check: bool = True) -> str:
        done = self.lab.exec(HOST, argv)
        assert not check or done.returncode == 0, f"{argv}: {done.stderr or done.stdout}\n{self.lab.log(HOST)[-3000:]}"
        return done.stdout

    def wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + _WAIT_S
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what}\n{self.lab.log(HOST)[-3000:]}"
            time.sleep(0.1)

    def interfaces(self) -> list[str]:
        return [line.split()[0].partition("@")[0] for line in self.run("ip", "-br", "link").splitlines()]

    def is_running(self, service: str) -> bool:
        return "Running" in self.run("pyswarm", "service", "ps", service, "--format", "{{.CurrentState}}")

    def answers(self) -> bool:
        return bool(self.run("curl", "-s", "-m", "2", "http://127.0.0.1:8080/", check=False))

    def certificate(self) -> bytes:
        """The one on disk."""
        return _der((self.lab.layout.host_dir(HOST) / "var/certificates/node.crt").read_text())

    def serves_its_certificate(self, port: int) -> bool:
        return self.served(port) == self.certificate()

    def served(self, port: int) -> bytes:
        """The one that whoever dials that port is shown."""
        text = self.run(sys.executable, "-c", SERVED, str(port), check=False)
        return _der(text) if text.strip() else b""


def _der(pem: str) -> bytes:
    end = "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(pem.partition(end)[0].strip() + "\n" + end)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    program = tmp_path_factory.mktemp("daemon") / "pyswarmd.py"
    program.write_text(DAEMON)
    name = f"keep-{uuid.uuid4().hex[:6]}"
    options = default_daemon(Layout(name).cgroup(HOST))[1:]
    daemon = (sys.executable, str(program), *options, "--network-check-period", "1")
    lab = Lab.up(name, managers=1, workers=0, init=False, daemon=daemon)
    try:
        wait_daemons(lab)
        made = Host(lab)
        made.run("pyswarm", "init")
        made.run("pyswarm", "image", "import", str(_root_file_system(program.parent)), "busybox")
        yield made
    finally:
        assert lab.down() == []


def _root_file_system(directory: Path) -> Path:
    path = directory / "rootfs.tar"
    with tarfile.open(path, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in ("sh", "httpd", "hostname"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o777
        tar.addfile(temporary, io.BytesIO())
    return path


@pytest.fixture
def web(host: Host) -> Iterator[Host]:
    """A service on a network, published at 8080."""
    host.run("pyswarm", "network", "create", "-d", "overlay", "net")
    command = ["--network", "net", "-p", "8080:80", "--stop-signal", "SIGKILL", "busybox", "sh", "-c", PAGE]
    host.run("pyswarm", "service", "create", "-d", "--name", "web", *command)
    host.wait(lambda: host.is_running("web"), "the task")
    yield host
    host.run("pyswarm", "service", "rm", "web")
    removed = "pyswarm", "network", "rm", "net"
    host.wait(lambda: host.lab.exec(HOST, removed).returncode == 0, "the network's removal")


def test_an_interface_deleted_by_hand_comes_back(web: Host) -> None:
    web.wait(web.answers, "the page")
    ours = [link for link in web.interfaces() if link.startswith("ps-")]
    assert ours
    for link in ours:
        web.run("ip", "link", "del", link)
    web.wait(lambda: "networks repaired: " in web.lab.log(HOST), "the repair")
    web.wait(web.answers, "the page again")
    web.wait(lambda: set(ours) <= set(web.interfaces()), "all of them")


def test_limits_of_open_files(web: Host) -> None:
    limits = web.run("sh", "-c", "grep '^Max open files' /proc/$(cat /var/lib/pyswarm/pyswarmd.lock)/limits").split()
    soft, hard = limits[3:5]
    assert soft == hard
    wanted = f"open files 1024 {min(int(hard), 524288)}"
    web.wait(lambda: wanted in web.run("pyswarm", "service", "logs", "web"), "what the container may open")


def test_a_published_port_that_another_program_has(host: Host) -> None:
    listener = subprocess.Popen(host.lab.exec_argv(HOST, ["sh", "-c", LISTEN]))
    try:
        host.wait(lambda: ":8080" in host.run("ss", "-Hltn"), "the port's taker")
        host.run("pyswarm", "service", "create", "-d", "--name", "late", "-p", "8080:80", "busybox", "sh", "-c", PAGE)
        words = "published port 8080/tcp is already allocated by another program on this node"
        host.wait(lambda: words in host.lab.log(HOST), "the reason")
        host.wait(lambda: host.is_running("late"), "the task")
    finally:
        host.run("kill", host.run("cat", "/run/listener").strip())
        listener.wait()
    host.wait(lambda: "all published ports work now" in host.lab.log(HOST), "the port")
    host.wait(host.answers, "the page")
    assert host.lab.log(HOST).count(words) == 1
    host.run("pyswarm", "service", "rm", "late")


def test_a_certificate_is_renewed_in_time(web: Host) -> None:
    """Half of its ninety days have passed: a new one, which manager, door and agent serve, and the cluster goes on."""
    before, manager = web.certificate(), web.lab.processes(HOST, "manager")
    assert web.served(2377) == before
    web.run("sh", "-c", f"echo {75 * 86400} > {AHEAD}")
    try:
        web.run("pyswarm", "node", "update", "--label-add", "look=again", HOST)  # the daemon looks at its node
        web.wait(lambda: web.certificate() != before, "the new certificate")
    finally:
        web.run("rm", AHEAD)
    for port in (2377, 2378, 7946):
        web.wait(partial(web.serves_its_certificate, port), f"the new certificate at {port}")
    assert web.lab.processes(HOST, "manager") == manager
    web.run("pyswarm", "service", "scale", "-d", "web=2")
    replicas = "pyswarm", "service", "ls", "--format", "{{.Replicas}}"
    web.wait(lambda: "2/2" in web.run(*replicas), "a second task, by a session with the new certificate")
    assert "Traceback" not in web.lab.log(HOST)

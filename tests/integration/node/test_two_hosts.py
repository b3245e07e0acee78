"""Two real hosts: joining, images between them, roles changed live, leaving, and a join that goes wrong."""

from __future__ import annotations

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

FIRST, SECOND = "n1", "n2"
_WAIT_S = 60.0
PORT = 5790
LISTEN = """echo $$ > /run/listener
exec python3 -c 'import socket, time; taken = socket.create_server(("", 2377)); time.sleep(600)'"""


class Pair:
    """Two lab hosts."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def run(self, host: str, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = self.lab.exec(host, argv)
        if check:
            assert done.returncode == 0, f"{host} {argv}: {done.stderr or done.stdout}\n{self.lab.log(host)[-3000:]}"
        return done

    def nodes(self) -> dict[str, dict[str, str]]:
        lines = self.run(FIRST, "pyswarm", "node", "ls", "--format", "json").stdout.splitlines()
        return {row["Hostname"]: row for row in map(json.loads, lines)}

    def token(self, role: str) -> str:
        return self.run(FIRST, "pyswarm", "join-token", "-q", role).stdout.strip()

    def join(self, token: str, *options: str) -> subprocess.CompletedProcess[str]:
        address = self.lab.host(FIRST).address
        return self.run(SECOND, "pyswarm", "join", "--token", token, *options, address, check=False)

    def wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + _WAIT_S
        while not condition():
            logs = "\n".join(self.lab.log(host)[-2000:] for host in (FIRST, SECOND))
            assert time.monotonic() < deadline, f"waited for {what}\n{logs}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    lab = Lab.up(f"two-{uuid.uuid4().hex[:6]}", managers=1, workers=1, init=False)
    try:
        wait_daemons(lab)
        yield Pair(lab)
    finally:
        assert lab.down() == []


@pytest.fixture
def cluster(pair: Pair) -> Iterator[Pair]:
    """One manager, on a VXLAN port that is not the default; the second host is left to the test."""
    pair.run(FIRST, "pyswarm", "init", "--data-path-port", str(PORT))
    yield pair
    for host in (SECOND, FIRST):
        pair.run(host, "pyswarm", "leave", "--force", check=False)
        left = pair.run(host, "ls", "-I", "backups", "/var/lib/pyswarm").stdout.split()
        assert left == ["pyswarmd.lock", "runtime"], left


def _import_busybox(pair: Pair, host: str, directory: Path) -> None:
    path = directory / "rootfs.tar"
    with tarfile.open(path, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        link = tarfile.TarInfo("bin/sleep")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(link)
    pair.run(host, "pyswarm", "image", "import", str(path), "sleeper")


def test_a_worker_joins_fetches_and_leaves(cluster: Pair, tmp_path: Path) -> None:
    _import_busybox(cluster, FIRST, tmp_path)
    joined = cluster.join(cluster.token("worker"))
    assert joined.returncode == 0, joined.stderr
    assert cluster.nodes()[SECOND]["Status"] == "Ready"
    options = ["--constraint", "node.role==worker", "--stop-signal", "SIGKILL"]
    cluster.run(FIRST, "pyswarm", "network", "create", "-d", "overlay", "net")
    cluster.run(
        *(FIRST, "pyswarm", "service", "create", "-d", "--name", "far", "--network", "net", *options),
        *("sleeper", "sleep", "3600"),
    )
    cluster.wait(lambda: "Running" in cluster.run(FIRST, "pyswarm", "service", "ps", "far").stdout, "the far task")
    assert "sleeper" in cluster.run(SECOND, "pyswarm", "image", "ls").stdout
    # The VXLAN device lives in the network's own namespace; its socket, in the host's.
    assert f":{PORT}" in cluster.run(SECOND, "ss", "-Huln").stdout
    assert "Worker nodes can't be used" in cluster.run(SECOND, "pyswarm", "node", "ls", check=False).stderr
    cluster.run(SECOND, "pyswarm", "leave")
    cluster.wait(lambda: cluster.nodes()[SECOND]["Status"] == "Down", "the node's absence")
    assert "conmon" not in cluster.run(SECOND, "ps", "-eo", "comm").stdout
    cluster.run(FIRST, "pyswarm", "node", "rm", SECOND)
    cluster.run(FIRST, "pyswarm", "service", "rm", "far")


def test_promoted_demoted_and_removed(cluster: Pair) -> None:
    assert cluster.join(cluster.token("worker")).returncode == 0
    cluster.run(FIRST, "pyswarm", "node", "promote", SECOND)
    cluster.wait(lambda: cluster.nodes()[SECOND]["ManagerStatus"] == "Reachable", "the promotion")
    cluster.wait(lambda: cluster.run(SECOND, "pyswarm", "node", "ls", check=False).returncode == 0, "its manager")
    cluster.run(FIRST, "pyswarm", "node", "demote", SECOND)
    cluster.wait(lambda: cluster.nodes()[SECOND]["ManagerStatus"] == "", "the demotion")
    cluster.wait(lambda: not cluster.lab.processes(SECOND, "manager"), "the end of its manager")
    cluster.wait(
        lambda: "manager" not in cluster.run(SECOND, "ls", "-I", "backups", "/var/lib/pyswarm").stdout.split(),
        "its state",
    )
    cluster.wait(lambda: cluster.nodes()[SECOND]["Status"] == "Ready", "the worker's session")
    cluster.run(FIRST, "pyswarm", "node", "rm", "--force", SECOND)
    cluster.wait(lambda: "removed from its cluster" in cluster.lab.log(SECOND), "the node to learn of it")


def test_a_join_that_is_refused_leaves_nothing(cluster: Pair) -> None:
    good = cluster.token("worker")
    wrong_secret = f"{good.rpartition('-')[0]}-{'0' * 25}"
    wrong_root = f"SWMTKN-1-{'0' * 50}-{'0' * 25}"
    for token, words in (
        (wrong_secret, "invalid join token"),
        (wrong_root, "remote CA does not match fingerprint"),
    ):
        refused = cluster.join(token)
        assert refused.returncode != 0
        assert words in refused.stderr
        assert refused.stderr.count("\n") == 1
    # The certificate is issued, but the manager cannot listen: everything is undone, on both sides.
    listener = subprocess.Popen(cluster.lab.exec_argv(SECOND, ["sh", "-c", LISTEN]))
    try:
        cluster.wait(lambda: ":2377" in cluster.run(SECOND, "ss", "-Hltn").stdout, "the port's taker")
        refused = cluster.join(cluster.token("manager"))
    finally:
        cluster.run(SECOND, "kill", cluster.run(SECOND, "cat", "/run/listener").stdout.strip())
        listener.wait()
    assert "cannot listen on 0.0.0.0:2377" in refused.stderr
    assert cluster.run(SECOND, "ls", "-I", "backups", "/var/lib/pyswarm").stdout.split() == ["pyswarmd.lock", "runtime"]
    assert cluster.nodes().get(SECOND, {}).get("ManagerStatus", "") == ""
    assert cluster.join(good).returncode == 0


def test_a_managers_host_joins_and_leaves_by_force(cluster: Pair) -> None:
    joined = cluster.join(cluster.token("manager"))
    assert joined.returncode == 0, joined.stderr
    refused = cluster.run(SECOND, "pyswarm", "leave", check=False)
    assert "participating as a manager" in refused.stderr
    cluster.run(SECOND, "pyswarm", "leave", "--force")
    cluster.wait(lambda: cluster.nodes()[SECOND]["Status"] == "Down", "the node's absence")
    assert cluster.nodes()[SECOND]["ManagerStatus"] == ""
    # With its other manager gone the proper way, the first still has its majority.
    cluster.run(FIRST, "pyswarm", "network", "create", "-d", "overlay", "after")

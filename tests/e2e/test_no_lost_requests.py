"""Updates and a drain under load: no request is lost, although the server drops all it has when it is told to stop.

One replica. Real connections, a new one for each request: from inside a container through the virtual address, and from
another host through the published port of a node that the task is not on.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e_cluster import PYSWARM, Cluster, eventually

from pyswarm_lab.image import write_rootfs

UPDATES = 20
RATE = 100
"""Requests a second, of each of the two clients."""
HERE = Path(__file__).parent
PYTHON = str(Path(sys.executable).resolve())
HEALTH = (
    "--health-cmd",
    "busybox wget -q -O /dev/null http://127.0.0.1/",
    "--health-interval",
    "10s",
    "--health-retries",
    "6",
)
GRACE = ("--stop-grace-period", "60s")
"""As long as a task goes on while it serves somebody: a busy machine takes seconds for what should take none."""
START_FIRST = ("--update-order", "start-first", "--update-monitor", "1ms", "--update-delay", "0s")


@pytest.fixture(scope="module")
def web(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A naive server with one replica, and a container beside it on the same network."""
    import_image(cluster, tmp_path_factory.mktemp("naive") / "rootfs.tar")
    python = [f"type=bind,source={path},target={path},readonly" for path in sorted({"/usr", sys.base_prefix})]
    mounts = [part for mount in python for part in ("--mount", mount)]
    cluster.run("n1", "network", "create", "--driver", "overlay", "naive-net")
    create = ("service", "create", "--quiet", "--network", "naive-net")
    try:
        port = ("--publish", "8099:80")
        cluster.run("n1", *create, "--name", "naive", *port, *mounts, *HEALTH, *GRACE, *START_FIRST, "naive:1")
        cluster.run("n1", *create, "--name", "beside", *mounts, "naive:1")
        yield cluster
    finally:
        cluster.on("n1", "pyswarm", "service", "rm", "naive", "beside")
        eventually(
            lambda: cluster.on("n1", "pyswarm", "network", "rm", "naive-net").returncode == 0, "the network is unused"
        )


def import_image(cluster: Cluster, archive: Path) -> None:
    """The lab's image and the server; Python itself is mounted from the host."""
    write_rootfs(archive)
    server = (HERE / "naive_server.py").read_bytes()
    with tarfile.open(archive, "a") as files:
        for name in ("lib", "lib64"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            files.addfile(link)
        entry = tarfile.TarInfo("server.py")
        entry.size, entry.mode = len(server), 0o644
        files.addfile(entry, io.BytesIO(server))
    command = json.dumps([PYTHON, "-S", "/server.py"])
    cluster.run("n1", "image", "import", "--change", f"CMD {command}", str(archive), "naive:1")


class Client:
    """The load client as a process inside a host of the lab."""

    def __init__(self, cluster: Cluster, host: str, *argv: str) -> None:
        command = [PYSWARM, "lab", "exec", "--name", cluster.name, host, "--", *argv]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def finish(self) -> dict[str, object]:
        """What became of its requests."""
        answer, _ = self._process.communicate("", timeout=120)
        summary: dict[str, object] = json.loads(answer)
        return summary

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def under_load(cluster: Cluster) -> Iterator[dict[str, Client]]:
    """Through the virtual address and through a published port, `RATE` requests a second each."""
    program = (PYTHON, str(HERE / "request_client.py"))
    [(beside, host)] = cluster.running("beside").items()
    [vip] = json.loads(cluster.run("n1", "service", "inspect", "naive", "--format", "{{json .Endpoint.VirtualIPs}}"))
    inside = ("nsenter", f"--net=/run/pyswarm/network/netns/{beside}")
    clients: dict[str, Client] = {}
    try:
        clients["vip"] = Client(cluster, host, *inside, *program, vip["Addr"].partition("/")[0], "80", str(RATE))
        other = cluster.lab.host("n4").address
        clients["ingress"] = Client(cluster, "n5", *program, other, "8099", str(RATE))
        yield clients
    finally:
        for client in clients.values():
            client.kill()


def only_task(cluster: Cluster) -> tuple[str, str]:
    """(id, host) of the one task that is wanted and runs."""
    return eventually(lambda: [*cluster.running("naive").items(), ("", "")][0], "a task runs")


def wait_stopped(cluster: Cluster) -> None:
    """Until nothing runs that is not wanted: its end is part of what may lose requests."""
    ended = ["service", "ps", "naive", "--filter", "desired-state=shutdown", "--format", "{{.CurrentState}}"]
    eventually(lambda: "Running" not in cluster.run("n1", *ended), "old tasks have stopped", 120.0)


@pytest.mark.timeout(900)
def test_updates_and_a_drain_lose_no_request(web: Cluster) -> None:
    tasks = [only_task(web)[0]]
    with under_load(web) as clients:
        for _ in range(UPDATES):
            web.run("n1", "service", "update", "--quiet", "--force", "naive")
            tasks.append(only_task(web)[0])
        before, host = only_task(web)
        web.run("n1", "node", "update", "--availability", "drain", host)
        try:
            eventually(lambda: web.running("naive") and before not in web.running("naive"), "the task has moved")
            assert only_task(web)[1] != host
            wait_stopped(web)
        finally:
            web.run("n1", "node", "update", "--availability", "active", host)
        told = {name: client.finish() for name, client in clients.items()}
    print(told)
    assert len(set(tasks)) == UPDATES + 1, "every update replaced the task"
    assert {name: summary["failed"] for name, summary in told.items()} == {"vip": [], "ingress": []}

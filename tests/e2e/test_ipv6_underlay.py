"""Hosts that have IPv6 alone: a swarm, an overlay with an interface and a port of its own, published ports, and plain
containers beside the tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_cluster import IMAGE, Cluster, eventually, lab_with_clean_end

from pyswarm_lab.image import CHANGES, write_rootfs

CLIENT = str(Path(__file__).with_name("plain_client.py"))
CONTAINER = "c0ffee0123456789"


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """n1 manages, n2 works; each has a second cable (eth1) for the traffic of containers."""
    for made in lab_with_clean_end(f"six-{os.getpid()}", "--ipv6", "--managers", "1", "--workers", "1", "--no-init"):
        for number, record in enumerate(made.lab.hosts, 1):
            _second_cable(made, number, record.name)
        made.run(
            *("n1", "init", "--advertise-addr", "[fd00:77::11]:2377", "--listen-addr", "[::]:2377"),
            *("--data-path-addr", "eth1", "--data-path-port", "7789"),
        )
        token = made.run("n1", "join-token", "-q", "worker").strip()
        made.run("n2", "join", "--token", token, "--data-path-addr", "fd00:78::2", "[fd00:77::11]:2377")
        archive = tmp_path_factory.mktemp("image") / "rootfs.tar"
        write_rootfs(archive)
        changes = [part for change in CHANGES for part in ("--change", change)]
        made.run("n1", "image", "import", *changes, str(archive), IMAGE)
        made.run("n1", "network", "create", "-d", "overlay", "--attachable", "app")
        made.run(
            *("n1", "service", "create", "--detach", "--name", "web", "--replicas", "2", "--network", "app"),
            *("--replicas-max-per-node", "1", "--publish", "8080:80", IMAGE),
        )
        yield made


def _second_cable(cluster: Cluster, number: int, host: str) -> None:
    init = cluster.lab.host(host).init
    assert init is not None
    port = f"{host}-data"
    for command in (
        f"ip link add {port} type veth peer name eth1 netns {init.pid}",
        f"ip link set {port} master switch0 up",
    ):
        assert cluster.lab.outside(command.split()).returncode == 0
    cluster.lab.exec(host, f"ip address add fd00:78::{number}/64 dev eth1 nodad".split(), check=True)
    cluster.lab.exec(host, ["ip", "link", "set", "eth1", "up"], check=True)


def in_task(cluster: Cluster, slot: int, *argv: str) -> subprocess.CompletedProcess[str]:
    return cluster.on("n1", "pyswarm", "task", "exec", f"web.{slot}", *argv)


def names_of_tasks(cluster: Cluster) -> set[str]:
    return {in_task(cluster, slot, "hostname").stdout.strip() for slot in (1, 2)}


def test_a_service_over_ipv6_by_name_by_virtual_address_and_by_published_port(six: Cluster) -> None:
    eventually(lambda: len(six.running("web")) == 2, "both tasks run")
    assert sorted(six.nodes()) == ["n1", "n2"]
    assert "fd00:77::11" in six.run("n1", "info")
    everybody = names_of_tasks(six)
    assert len(everybody) == 2
    asked = [in_task(six, 1, "wget", "-q", "-O", "-", "http://web/").stdout.strip() for _ in range(4)]
    assert set(asked) == everybody
    found = in_task(six, 2, "nslookup", "-type=a", "tasks.web").stdout
    assert found.count("Address: 10.") == 2
    for host in ("n1", "n2"):
        answers = [six.on(host, "curl", "-sm5", "http://127.0.0.1:8080/").stdout.strip() for _ in range(4)]
        assert set(answers) == everybody
        outside = six.lab.outside(["curl", "-gsm5", f"http://[{six.lab.host(host).address}]:8080/"])
        assert outside.stdout.strip() in everybody


def test_the_tunnels_take_the_interface_and_the_port_they_were_given(six: Cluster) -> None:
    eventually(lambda: len(six.running("web")) == 2, "both tasks run")
    described = json.loads(six.run("n1", "node", "inspect", "n2"))[0]["Description"]
    assert described["DataPathAddr"] == "fd00:78::2"
    for host in ("n1", "n2"):
        listening = six.on(host, "ss", "-Huln").stdout
        assert ":7789 " in listening
        assert ":4789 " not in listening
    # Only the cable of containers is pulled: the swarm goes on, what goes from task to task does not.
    assert six.lab.outside(["ip", "link", "set", "n2-data", "down"]).returncode == 0
    assert len(names_of_tasks(six)) == 2
    assert in_task(six, 1, "ping", "-c1", "-W1", "2.web").returncode != 0
    assert six.lab.outside(["ip", "link", "set", "n2-data", "up"]).returncode == 0
    eventually(lambda: in_task(six, 1, "ping", "-c1", "-W1", "2.web").returncode == 0, "the cable is back")


def test_the_mtu_of_running_tasks_follows_the_underlay(six: Cluster) -> None:
    def mtu() -> int:
        return int(in_task(six, 1, "cat", "/sys/class/net/eth0/mtu").stdout)

    assert mtu() == 1500 - 70
    for host in ("n1", "n2"):
        six.lab.exec(host, ["ip", "link", "set", "eth1", "mtu", "1400"], check=True)
    eventually(lambda: mtu() == 1400 - 70, "the tasks' MTU follows")
    assert names_of_tasks(six) == {
        in_task(six, 1, "wget", "-q", "-O", "-", "http://web/").stdout.strip() for _ in range(4)
    }


def test_a_plain_container_beside_the_tasks(six: Cluster) -> None:
    path = six.on("n2", sys.executable, CLIENT, "attach", CONTAINER, "mine", "app").stdout.strip()
    inside = ("nsenter", f"--net={path}")
    argv = six.lab.exec_argv("n2", [*inside, "busybox", "nc", "-ll", "-p", "7000", "-e", "echo", "from mine"])
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as server:
        try:
            # From a task by name, and from the container by the service's name and virtual address.
            eventually(lambda: in_task(six, 1, "nc", "mine", "7000").stdout == "from mine\n", "mine answers a task")
            vip = _address_of(six.on("n2", *inside, "busybox", "nslookup", "-type=a", "web", "127.0.0.11").stdout)
            everybody = names_of_tasks(six)
            assert six.on("n2", *inside, "curl", "-sm5", f"http://{vip}/").stdout.strip() in everybody
            refused = six.refused("n1", "network", "rm", "app")
            assert "in use" in refused
            six.lab.kill("n2", "pyswarmd")
            assert six.on("n2", *inside, "curl", "-sm5", f"http://{vip}/").stdout.strip() in everybody
            six.lab.start("n2")
            eventually(lambda: six.on("n2", sys.executable, CLIENT, "list").stdout.startswith("mine 10."), "it is kept")
        finally:
            server.kill()
    assert "No such container: nobody" in six.refused("n2", "network", "connect", "app", "nobody")
    assert "not manually attachable" in six.refused("n2", "network", "connect", "ingress", "mine")
    six.run("n2", "network", "disconnect", "app", "mine")
    assert "is not connected to network app" in six.refused("n2", "network", "disconnect", "app", "mine")
    six.run("n2", "network", "connect", "--alias", "ours", "--ip", "10.0.1.200", "app", CONTAINER[:6])
    assert "10.0.1.200" in in_task(six, 1, "nslookup", "-type=a", "ours").stdout
    six.on("n2", sys.executable, CLIENT, "detach", CONTAINER)
    eventually(lambda: "10.0.1.200" not in in_task(six, 1, "nslookup", "-type=a", "ours").stdout, "its names go")


def _address_of(answer: str) -> str:
    return next(line.split()[-1] for line in reversed(answer.splitlines()) if line.startswith("Address"))

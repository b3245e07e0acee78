"""Published ports of every kind, as users ask for them and as clients outside meet them: who is served, at which
addresses, and as whom the task sees its client. The lab's switch is the outside: a machine that is no node."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e_cluster import IMAGE, Cluster, eventually

HERE = Path(__file__).parent
PYTHON = str(Path(sys.executable).resolve())
N1, N2, N4 = "192.168.77.11", "192.168.77.12", "192.168.77.14"
OUTSIDE, OUTSIDE6 = "192.168.77.1", "fd00:77::1"
N4_6 = "fd00:77::14"
PROXIED = "8104"
PUBLISHED = (
    *("-p", "8101:81", "-p", "8101:81/udp"),
    *("-p", "published=8102,target=82,policy=local", "-p", "published=8102,target=82,protocol=udp,policy=local"),
    *("-p", f"{N2}:8103:83"),
    *("-p", f"published={PROXIED},target=84,proxy-protocol=true"),
    *("-p", "8110-8112:90-92"),
    *("-p", "93"),
)
TARGETS = ("84", "81", "82", "83", "90", "91", "92", "93")


@dataclass(frozen=True, slots=True)
class Published:
    """`ports` has one task, on n4; `sticky` has one on each manager."""

    cluster: Cluster

    def ask(self, *where: tuple[str, str, int]) -> list[str]:
        """As the client outside: (protocol, address, port) -> what the server says, without its host's name."""
        return [text.partition(" ")[2] or text for text in self.ask_whom(*where)]

    def ask_whom(self, *where: tuple[str, str, int]) -> list[str]:
        argv = [",".join(map(str, one)) for one in where]
        done = self.cluster.lab.outside([PYTHON, "-S", str(HERE / "address_client.py"), *argv])
        assert done.returncode == 0, done.stderr
        answers: list[str] = json.loads(done.stdout)
        return answers


@pytest.fixture(scope="module")
def published(cluster: Cluster) -> Iterator[Published]:
    cluster.lab.exec("n4", ["ip", "addr", "add", f"{N4_6}/64", "dev", "eth0", "nodad"], check=True)
    folders = sorted({"/usr", "/lib", "/lib64", sys.base_prefix, str(HERE)})
    mounts = [part for path in folders for part in ("--mount", f"type=bind,source={path},target={path},readonly")]
    create = ("service", "create", "-q", "--detach", *mounts)
    serve = (IMAGE, PYTHON, "-S", str(HERE / "address_server.py"))
    made = Published(cluster)
    try:
        cluster.run(
            "n1", *create, "--name", "ports", "--constraint", "node.hostname==n4", *PUBLISHED, *serve, *TARGETS
        )  # fmt: skip
        sticky = ("--replicas", "3", "--constraint", "node.role==manager", "--session-affinity", "client-ip")
        cluster.run("n1", *create, "--name", "sticky", *sticky, "-p", "8105:81", *serve, "84", "81")
        eventually(lambda: cluster.running("ports") and len(cluster.running("sticky")) == 3, "all tasks run")
        nodes = [record.address for record in cluster.lab.hosts]
        eventually(lambda: made.ask(*(("tcp", node, 8101) for node in nodes)) == [f"81 {OUTSIDE}"] * 5, "all serve")
        yield made
    finally:
        cluster.on("n1", "pyswarm", "service", "rm", "ports", "sticky")
        cluster.lab.exec("n4", ["ip", "addr", "del", f"{N4_6}/64", "dev", "eth0"])


def test_a_task_sees_its_client_through_every_node_over_tcp_and_udp(published: Published) -> None:
    seen = published.ask(*((protocol, node, 8101) for protocol in ("tcp", "udp") for node in (N1, N2, N4)))
    assert seen == [f"81 {OUTSIDE}"] * 6


def test_local_policy_is_served_where_a_task_is_and_refused_elsewhere(published: Published) -> None:
    asked = [(protocol, node, 8102) for node in (N4, N1) for protocol in ("tcp", "udp")]
    assert published.ask(*asked) == [f"82 {OUTSIDE}", f"82 {OUTSIDE}", "refused", "refused"]
    code = published.cluster.on("n1", "pyswarm", "network", "trace", "n1", "ingress:8102")
    assert code.returncode == 1
    assert code.stdout.splitlines()[-1].startswith("stops: tcp port 8102 at every address refuses")
    assert published.cluster.on("n1", "pyswarm", "network", "trace", "n4", "ingress:8102").returncode == 0


def test_a_port_at_one_address_of_one_node(published: Published) -> None:
    assert published.ask(("tcp", N2, 8103), ("tcp", N1, 8103), ("tcp", N4, 8103)) == [
        *(f"83 {OUTSIDE}", "refused", "refused")
    ]  # fmt: skip


def test_ranges_and_ports_that_are_chosen(published: Published) -> None:
    shown = published.cluster.run("n1", "service", "inspect", "ports")
    ports = json.loads(shown)[0]["Endpoint"]["Ports"]
    (chosen,) = [port["PublishedPort"] for port in ports if port["TargetPort"] == 93]
    assert 30000 <= chosen <= 32767
    asked = [("tcp", N1, port) for port in (8110, 8111, 8112, chosen)]
    assert published.ask(*asked) == [f"{port} {OUTSIDE}" for port in (90, 91, 92, 93)]


def test_the_proxy_protocol_names_the_client(published: Published) -> None:
    asked = [("tcp", node, int(PROXIED)) for node in (N1, N4)]
    assert published.ask(*asked) == [f"84 {OUTSIDE}"] * 2
    assert published.cluster.on("n1", "pyswarm", "network", "trace", "n1", f"ingress:{PROXIED}").returncode == 0


def test_a_client_meets_the_same_task_through_every_node(published: Published) -> None:
    met = published.ask_whom(*(("tcp", node, 8105) for node in (N1, N2, N4) for _ in range(4)))
    assert len(set(met)) == 1, met
    assert met[0].endswith(f" 81 {OUTSIDE}")


def test_a_client_with_ipv6_is_seen_where_the_task_is(published: Published) -> None:
    asked = [(protocol, N4_6, 8101) for protocol in ("tcp", "udp")]
    eventually(lambda: published.ask(*asked) == [f"81 {OUTSIDE6}"] * 2, "served over IPv6 with the client's address")

"""`network verify` and `network trace` as operators use them: on healthy nodes, damaged ones, and one that is away."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e_cluster import IMAGE, Cluster, eventually

CLIENT = str(Path(__file__).with_name("plain_client.py"))
CONTAINER = "c0ffee0123456789"
RUN = "/run/pyswarm/network"
HEAL_S = 10.0
"""What damage may take to be found and repaired."""


@dataclass(frozen=True, slots=True)
class Walked:
    """`door` on n5 lets in `web` (on n4) and published ports; `tool` is a plain container of n4."""

    cluster: Cluster
    network: str
    """By which nsenter finds the network's namespace on a host; `box`: that of the task of door."""
    box: str

    def trace(self, *argv: str) -> tuple[int, list[str]]:
        """Exit code and lines."""
        done = self.cluster.on("n1", "pyswarm", "network", "trace", *argv)
        assert not done.stderr, done.stderr
        return done.returncode, done.stdout.splitlines()

    def verify(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self.cluster.on("n1", "pyswarm", "network", "verify", *argv)


@pytest.fixture(scope="module")
def walked(cluster: Cluster) -> Iterator[Walked]:
    network = cluster.run("n1", "network", "create", "-d", "overlay", "--attachable", "walked").strip()
    create = ("service", "create", "-q", "--detach", "--network", "walked")
    try:
        cluster.run("n1", *create, "--name", "web", "--constraint", "node.hostname==n4", IMAGE)
        policy = ("--allow-from", "web", "--allow-from", "ingress", "-p", "8097:80")
        cluster.run("n1", *create, "--name", "door", *policy, "--constraint", "node.hostname==n5", IMAGE)
        client = cluster.on("n4", sys.executable, CLIENT, "attach", CONTAINER, "tool", "walked")
        assert client.returncode == 0, client.stderr
        (task,) = eventually(lambda: cluster.running("web") and cluster.running("door"), "both run")
        yield Walked(cluster, f"--net={RUN}/overlays/{network}", f"--net={RUN}/netns/{task}")
    finally:
        cluster.on("n4", sys.executable, CLIENT, "detach", CONTAINER)
        cluster.on("n1", "pyswarm", "service", "rm", "web", "door")
        eventually(lambda: cluster.on("n1", "pyswarm", "network", "rm", "walked").returncode == 0, "the network goes")


def test_every_node_is_as_wanted(walked: Walked) -> None:
    eventually(lambda: walked.verify("--dry-run").returncode == 0, "nothing is wrong anywhere")
    done = walked.verify()
    assert (done.returncode, done.stderr) == (0, "")
    lines = sorted(done.stdout.splitlines())
    assert [line.partition(":")[0] for line in lines] == ["n1", "n2", "n3", "n4", "n5"]
    assert all(line.endswith(": everything is as wanted") for line in lines), done.stdout
    (shown,) = json.loads(walked.cluster.run("n1", "network", "verify", "--format", "json", "n5"))
    assert (shown["Findings"], shown["Away"]) == ([], "")
    tables = {table["Name"]: table for table in shown["Tables"]}
    assert not tables["walked"]["Stale"]
    assert tables["walked"]["Version"] >= tables["walked"]["Current"] > 0


def test_ways_that_go_through(walked: Walked) -> None:
    code, lines = walked.trace("--probe", "web", "door:80")
    assert code == 0, lines
    assert lines[-1].startswith("goes through to door.1 (")
    assert [line.split()[1] for line in lines[:-1]] == [
        *("node", "name", "vip", "backend", "tunnel", "node", "interface", "policy", "socket", "probe")
    ]  # fmt: skip
    # A plain container is known by its name, its id, and the beginning of its id; and a way may lead to it.
    for tool in ("tool", CONTAINER, CONTAINER[:8]):
        code, lines = walked.trace(tool, "web:80")
        assert (code, lines[0].split()) == (0, ["ok", "node", "tool", "is", "on", "node", "n4"]), lines
    code, lines = walked.trace("door", "tool")
    assert (code, lines[-1].startswith("goes through to tool (")) == (0, True), lines


def test_ways_of_clients_from_outside(walked: Walked) -> None:
    for node in ("n1", "n5"):  # with its task elsewhere, and here
        code, lines = walked.trace(node, "ingress:8097")
        assert code == 0, lines
        assert lines[-1].startswith("goes through to door.1 ("), lines
    code, lines = walked.trace("n2", "ingress:8096")
    assert (code, lines[-1]) == (1, "stops: tcp port 8096 is not published on this node")
    line = walked.cluster.refused("n1", "network", "trace", "nosuch", "ingress:8097")
    assert line.endswith("node nosuch not found: the way to a published port begins at a node")


@pytest.mark.parametrize(
    ("source", "target", "verdict"),
    [
        ("web", "nosuch:80", "stops: nosuch does not exist for this container"),
        ("tool", "door:80", "stops: door.1: its policy does not let "),
        ("door", "web:81", "stops: web.1: nothing listens at tcp port 81"),
    ],
    ids=["no such name", "policy", "no listener"],
)
def test_ways_that_stop(walked: Walked, source: str, target: str, verdict: str) -> None:
    code, lines = walked.trace(source, target)
    assert code == 1
    assert lines[-1].startswith(verdict), lines
    assert any(line.startswith("STOP ") for line in lines[:-1]), lines


@contextmanager
def damaged_all_the_time(walked: Walked, folder: Path) -> Iterator[None]:
    """Again and again, so that it is seen however quickly it is repaired. The pid is a lab host's own."""
    running = folder / "damaging"
    running.touch()
    host = walked.cluster.lab
    remote = host.exec("n5", ["nsenter", walked.network, "bridge", "-j", "fdb", "show"], check=True).stdout
    macs = [(one["mac"], one["ifname"]) for one in json.loads(remote) if one.get("dst")]
    assert macs
    script = [
        f"while [ -e {running} ]; do",
        *(f"nsenter {walked.network} bridge fdb del {m} dev {d};" for m, d in macs),
    ]
    script += [f"nsenter {walked.box} nft flush ruleset;", "sleep 0.1; done"]
    argv = host.exec_argv("n5", ["sh", "-c", " ".join(script)])
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        try:
            yield
        finally:
            running.unlink()


def test_damage_is_told_and_repaired(walked: Walked, tmp_path: Path) -> None:
    cluster = walked.cluster
    begin = "v" + cluster.run("n1", "service", "inspect", "door", "--format", "{{.Version.Index}}").strip()
    with damaged_all_the_time(walked, tmp_path):
        told = eventually(lambda: wrong_of(walked), "what is wrong is told")
        assert any("wrong: network walked (" in line and "forwarding entry" in line for line in told), told
        assert any("nftables table ps_vip is missing" in line for line in told), told
    cluster.lab.exec("n5", ["nsenter", walked.box, "ip", "link", "del", "eth0"], check=True)
    eventually(lambda: is_whole(walked), "the tunnel entry, the rules and the interface are back", HEAL_S)
    eventually(lambda: walked.verify("--dry-run", "n5").returncode == 0, "nothing is wrong", HEAL_S)
    assert walked.trace("--probe", "web", "door:80")[0] == 0
    happened = eventually(lambda: repairs_of(cluster, begin), "the repairs are events of the node")
    assert all(text.startswith("networks repaired: ") for text in happened)


def wrong_of(walked: Walked) -> list[str]:
    """What `verify --dry-run` says of n5 while both kinds of damage are there; [] if it saw less."""
    done = walked.verify("--dry-run", "n5")
    lines = done.stdout.splitlines()
    both = all(any(what in line for line in lines) for what in ("forwarding entry", "nftables table"))
    return lines if done.returncode == 1 and both else []


def is_whole(walked: Walked) -> bool:
    """As the kernel of n5 shows it."""
    shown = [
        walked.cluster.on("n5", "nsenter", *argv).stdout
        for argv in (
            (walked.network, "bridge", "fdb", "show"),
            (walked.box, "nft", "list", "tables"),
            (walked.box, "ip", "-br", "addr", "show", "eth0"),
        )
    ]
    return " dst 192.168.77.14" in shown[0] and "ps_vip" in shown[1] and "10." in shown[2]


def repairs_of(cluster: Cluster, begin: str) -> list[str]:
    argv = ("--since", begin, "--until", "0s", "--filter", "node=n5", "--filter", "type=node", "--format", "json")
    rows = [json.loads(line) for line in cluster.run("n1", "events", *argv).splitlines()]
    told = [row["Actor"]["Attributes"].get("networkrepair.new") for row in rows]
    return [text for text in told if text]


def test_a_node_that_is_away(walked: Walked) -> None:
    cluster = walked.cluster
    cluster.lab.cut("n5")
    try:
        done = walked.verify("--dry-run")
        assert done.returncode == 1
        assert "n5" in done.stderr.splitlines()[-1]
        assert done.stderr.endswith(": its networks were not verified\n")
        assert len(done.stdout.splitlines()) == 4, done.stdout
        eventually(lambda: cluster.nodes()["n5"][0] == "Down", "n5 is Down")
        assert walked.trace("door", "web:80")[1][-1] == "stops: node n5 is down"
        code, lines = walked.trace("web", "door:80")
        assert code == 1
        assert "; door.1 " in lines[-1], lines  # on a node that is down, or waiting for one
    finally:
        cluster.lab.heal("n5")
        eventually(lambda: cluster.nodes()["n5"][0] == "Ready", "n5 is Ready")
    eventually(lambda: walked.trace("web", "door:80")[0] == 0, "the way goes through again")

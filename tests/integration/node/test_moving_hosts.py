"""Hosts that get other addresses while everything runs: a worker, one manager, then all managers at once.

Also a manager whose log is lost, and all hosts after a sleep that was longer than their certificates' life. Whole hosts
in a lab; one name leads to one of the managers."""

from __future__ import annotations

import json
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pyswarm_common.identity import NodeIdentity, RootAuthority, key_from_pem, make_csr
from pyswarm_lab.cluster import wait_daemons
from pyswarm_lab.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

MANAGERS, WORKER = ("n1", "n2", "n3"), "n4"
HOSTS = (*MANAGERS, WORKER)
SEED = "managers.test"
WAIT_S = 60.0
DAY = 86_400.0
CERTIFICATES = "/var/lib/pyswarm/certificates"


class MovingHosts:
    """Three managers and a worker."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.addresses = {host: lab.host(host).address for host in HOSTS}
        self.authority = RootAuthority.create("test", time.time() - 100 * DAY)
        self._moves = 100

    def run(self, host: str, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = self.lab.exec(host, argv)
        if check:
            assert done.returncode == 0, f"{host} {argv}: {done.stderr or done.stdout}\n{self.lab.log(host)[-3000:]}"
        return done

    def wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {host}\n{self.lab.log(host)[-2500:]}" for host in HOSTS)
                raise AssertionError(f"waited for {what}\n{logs}")
            time.sleep(0.2)

    def write(self, host: str, path: str, content: bytes) -> None:
        self.lab.exec(host, ["sh", "-c", f"cat > {path}"], stdin=content.decode(), check=True)

    def expire_certificate(self, host: str) -> None:
        """It ended yesterday; the key is the same. The daemon must not run."""
        certificate, key = (self.run(host, "cat", f"{CERTIFICATES}/{name}").stdout for name in ("node.crt", "node.key"))
        identity = NodeIdentity(certificate.encode(), key.encode(), self.authority.cert_pem)
        expired = self.authority.issue(
            make_csr(key_from_pem(identity.key_pem)),
            node_id=identity.node_id,
            cluster_id=identity.cluster_id,
            role=identity.role,
            now=time.time() - 91 * DAY,
            lifetime_s=90 * DAY,
        )
        self.write(host, f"{CERTIFICATES}/node.crt", expired)

    def name_seed(self, host: str) -> None:
        """The name leads to this host now, as every host's resolver says."""
        lines = f"127.0.0.1 localhost\n{self.addresses[host]} {SEED}\n"
        for one in HOSTS:
            self.lab.exec(one, ["sh", "-c", "cat > /etc/hosts"], stdin=lines, check=True)

    def own_hosts_files(self) -> None:
        for host in HOSTS:
            self.run(host, "sh", "-c", "cp /etc/hosts /run/hosts && mount --bind /run/hosts /etc/hosts")

    def move(self, host: str) -> None:
        """Another address on the same wire."""
        self._moves += 1
        address = f"192.168.77.{self._moves}"
        gateway = self.run(host, "ip", "-4", "route", "show", "default").stdout.split()[2]
        old = f"{self.addresses[host]}/24"
        steps = f"ip addr del {old} dev eth0 && ip addr add {address}/24 dev eth0 && ip route add default via {gateway}"
        self.run(host, "sh", "-c", steps)
        self.addresses[host] = address

    def nodes(self, host: str) -> dict[str, dict[str, str]]:
        done = self.run(host, "pyswarm", "node", "ls", "--format", "json", check=False)
        rows = map(json.loads, done.stdout.splitlines()) if done.returncode == 0 else ()
        return {row["Hostname"]: row for row in rows}

    def is_settled(self, host: str) -> bool:
        """Everybody is ready, one leads, and everybody is known by the address it has."""
        nodes = self.nodes(host)
        managers = sorted(nodes[name]["ManagerStatus"] for name in MANAGERS if name in nodes)
        if managers != ["Leader", "Reachable", "Reachable"] or any(row["Status"] != "Ready" for row in nodes.values()):
            return False
        shown = self.run(host, "pyswarm", "node", "inspect", *HOSTS, check=False)
        if shown.returncode != 0:
            return False
        found = {node["Description"]["Hostname"]: node for node in json.loads(shown.stdout)}
        return all(
            found[name]["Status"]["Addr"] == self.addresses[name]
            and found[name].get("ManagerStatus", {}).get("Addr", f"{self.addresses[name]}:2377")
            == f"{self.addresses[name]}:2377"
            for name in HOSTS
        )

    def running(self, host: str, service: str) -> int:
        options = ("--filter", "desired-state=running", "--format", "{{.CurrentState}}")
        done = self.run(host, "pyswarm", "service", "ps", service, *options, check=False)
        return sum(line.startswith("Running") for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MovingHosts]:
    lab = Lab.up(f"move-{uuid.uuid4().hex[:6]}", managers=3, workers=1, init=False)
    try:
        wait_daemons(lab)
        hosts = MovingHosts(lab)
        hosts.own_hosts_files()
        hosts.name_seed("n1")
        _form(hosts)
        _serve(hosts, tmp_path_factory.mktemp("image"))
        yield hosts
    finally:
        assert lab.down() == []


def _form(hosts: MovingHosts) -> None:
    """With a CA that the test has the key of, so that it can make certificates that have expired."""
    files = {"/run/ca.crt": hosts.authority.cert_pem, "/run/ca.key": hosts.authority.key_pem}
    for path, pem in files.items():
        hosts.write("n1", path, pem)
    hosts.run("n1", "pyswarm", "init", "--root-ca-cert", "/run/ca.crt", "--root-ca-key", "/run/ca.key")
    for host in HOSTS[1:]:
        role = "manager" if host in MANAGERS else "worker"
        token = hosts.run("n1", "pyswarm", "join-token", "-q", role).stdout.strip()
        hosts.run(host, "pyswarm", "join", "--token", token, SEED)
    hosts.wait(lambda: hosts.is_settled("n1"), "the cluster")


def _serve(hosts: MovingHosts, folder: Path) -> None:
    path = folder / "rootfs.tar"
    with tarfile.open(path, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in ("sleep", "wget", "httpd", "sh", "ping"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    hosts.run("n1", "pyswarm", "image", "import", str(path), "box")
    hosts.run("n1", "pyswarm", "network", "create", "-d", "overlay", "net")
    options = ("--name", "web", "--network", "net", "--mode", "global")
    hosts.run("n1", "pyswarm", "service", "create", "-d", *options, "box", "httpd", "-f", "-p", "80", "-h", "/bin")
    hosts.wait(lambda: hosts.running("n1", "web") == len(HOSTS), "the service")


def _containers(hosts: MovingHosts, host: str) -> set[str]:
    """What runs on a host: it goes on running whatever its address."""
    return set(hosts.run(host, "pgrep", "-f", "httpd -f -p 80").stdout.split())


def _inside(hosts: MovingHosts, host: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """A command in the network of the host's task."""
    enter = 'exec nsenter --net="$(ls -d /run/pyswarm/network/netns/*)" "$@"'
    return hosts.run(host, "sh", "-c", enter, "sh", *argv, check=False)


def _all_answer_over_the_overlay(hosts: MovingHosts) -> bool:
    """From the task on each host to the address that every other task has on the network."""
    links = [json.loads(_inside(hosts, host, "ip", "-j", "-4", "addr", "show", "dev", "eth0").stdout) for host in HOSTS]
    addresses = {found[0]["addr_info"][0]["local"] for found in links}
    assert len(addresses) == len(HOSTS), links
    ask = ("timeout", "2", "busybox", "wget", "-q", "-O", "/dev/null")  # its own -T crashes in Debian 12
    return all(
        _inside(hosts, host, *ask, f"http://{address}/sh").returncode == 0 for host in HOSTS for address in addresses
    )


def _write(hosts: MovingHosts, host: str, name: str) -> None:
    def written() -> bool:
        made = hosts.run(host, "pyswarm", "network", "create", "-d", "overlay", name, check=False)
        return made.returncode == 0 or "already exists" in made.stderr

    hosts.wait(written, f"a write on {host}")


def test_a_whole_cluster_sleeps_through_the_end_of_its_certificates(hosts: MovingHosts) -> None:
    before = {host: _containers(hosts, host) for host in HOSTS}
    for host in HOSTS:
        hosts.lab.kill(host, "pyswarmd")
    for host in HOSTS:
        hosts.expire_certificate(host)
    for host in HOSTS:
        hosts.lab.start(host)
    wait_daemons(hosts.lab)
    hosts.wait(lambda: hosts.is_settled("n1"), "everybody's return")
    _write(hosts, "n3", "after-the-sleep")
    hosts.wait(lambda: hosts.running("n1", "web") == len(HOSTS), "the service's tasks to be known as running")
    assert {host: _containers(hosts, host) for host in HOSTS} == before


def test_a_worker_and_a_manager_move(hosts: MovingHosts) -> None:
    before = {host: _containers(hosts, host) for host in HOSTS}
    hosts.move(WORKER)
    hosts.wait(lambda: hosts.is_settled("n1"), "the worker at its new address")
    hosts.move("n2")
    _write(hosts, "n2", "moved-one")
    hosts.wait(lambda: hosts.is_settled("n2"), "the manager at its new address")
    assert {host: _containers(hosts, host) for host in HOSTS} == before
    hosts.wait(lambda: _all_answer_over_the_overlay(hosts), "the overlay to follow")


def test_all_managers_move_at_once(hosts: MovingHosts) -> None:
    before = {host: _containers(hosts, host) for host in HOSTS}
    for host in MANAGERS:
        hosts.move(host)
    hosts.name_seed("n3")
    hosts.wait(lambda: any(hosts.is_settled(host) for host in MANAGERS), "the managers to find one another")
    for host in MANAGERS:
        _write(hosts, host, f"moved-all-{host}")
        hosts.wait(partial(hosts.is_settled, host), "everybody at the new addresses")
    leaders = {
        row["Hostname"] for host in MANAGERS for row in hosts.nodes(host).values() if row["ManagerStatus"] == "Leader"
    }
    assert len(leaders) == 1
    assert {host: _containers(hosts, host) for host in HOSTS} == before
    hosts.wait(lambda: _all_answer_over_the_overlay(hosts), "the overlay to follow")


def test_a_manager_without_its_log_comes_back_by_itself(hosts: MovingHosts) -> None:
    leader = next(row["Hostname"] for row in hosts.nodes("n1").values() if row["ManagerStatus"] == "Leader")
    lost = next(host for host in MANAGERS if host != leader)
    config = "/var/lib/pyswarm/manager/manager.json"
    old = json.loads(hosts.run(lost, "cat", config).stdout)["raft_id"]
    before = _containers(hosts, lost)
    # Nor does it remember the others: its agent knows them.
    hosts.run(lost, "sh", "-c", "cd /var/lib/pyswarm/manager && rm raft.db* standing.json")
    hosts.lab.kill(lost, "manager")
    hosts.wait(lambda: json.loads(hosts.run(lost, "cat", config).stdout)["raft_id"] != old, "a new raft id")
    hosts.wait(lambda: hosts.is_settled(leader), "the manager's return")
    _write(hosts, lost, "after-the-loss")
    assert _containers(hosts, lost) == before

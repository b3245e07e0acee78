"""Months of a production cluster in a minute: services come, go and change while hosts are cut off and CPUs are busy.

Then, at rest, every node is read by means of its own (kernel tables, sockets, DNS queries, requests) and compared with
what the managers say. Nothing here asks pyswarm's agents what they believe.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from e2e_cluster import IMAGE, Cluster, eventually

from pyswarm.v1 import control_pb2, control_pb2_grpc, types_pb2

PROBE = str(Path(__file__).with_name("breaker_probe.py"))
NETWORKS = ("break-a", "break-b")
FIRST_PORT = 18000
SERVE = ("busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
HOLDS = (types_pb2.TASK_STATE_ASSIGNED, types_pb2.TASK_STATE_RUNNING)


@dataclass(frozen=True, slots=True)
class Measure:
    """How much of everything."""

    services: int = 14
    redeploys: int = 150
    cuts: int = 6
    cut_s: tuple[float, float] = (10.0, 30.0)
    burners: int = 2


class Storm:
    """What happens to the cluster; everything random comes from one seed."""

    def __init__(self, cluster: Cluster, measure: Measure, seed: int) -> None:
        self._cluster, self._measure = cluster, measure
        self._random = random.Random(seed)
        self._managers = ("n1", "n2", "n3")

    def run(self) -> None:
        """Returns when the last command has been taken, nothing is cut off and nobody burns CPU."""
        for number in range(self._measure.services):
            self._create(number)
        self._cli("service", "create", "--name", "crashing", "--restart-delay", "300ms", "--network", NETWORKS[0],
                  IMAGE, "busybox", "false")  # fmt: skip
        with burning(self._measure.burners):
            cutter = threading.Thread(target=self._cut, args=(random.Random(self._random.random()),))
            cutter.start()
            try:
                for _ in range(self._measure.redeploys):
                    self._change(self._random.randrange(self._measure.services))
            finally:
                cutter.join()
        self._cli("service", "rm", "crashing")

    def _create(self, number: int) -> None:
        network = NETWORKS[number % 2]
        self._cli("service", "create", "--name", f"s{number}", "--network", network, "--hostname", "{{.Task.ID}}",
                  "--publish", f"{FIRST_PORT + number}:80", "--replicas", str(self._random.randint(1, 4)),
                  "--update-parallelism", str(self._random.randint(0, 2)), "--update-order",
                  self._random.choice(["start-first", "stop-first"]), "--update-monitor", "500ms",
                  "--restart-delay", "500ms", "--stop-grace-period", "2s", IMAGE, *SERVE)  # fmt: skip

    def _change(self, number: int) -> None:
        name, what = f"s{number}", self._random.random()
        if what < 0.5:
            self._cli("service", "update", "--force", name)
        elif what < 0.7:
            self._cli("service", "scale", f"{name}={self._random.randint(0, 5)}")
        elif what < 0.9:
            self._cli("service", "update", "--env-add", f"N={self._random.random()}", name)
        else:
            self._cli("service", "rm", name)
            self._create(number)

    def _cli(self, *words: str) -> None:
        """At any manager that is not cut off, until one takes it."""
        detached = ("--detach",) if words[1] in ("create", "update", "scale") else ()
        argv = ("pyswarm", *words[:2], *detached, *words[2:])
        deadline = time.monotonic() + 120
        while True:
            host = self._random.choice(self._managers)
            done = self._cluster.on(host, *argv)
            if done.returncode == 0 or "already exists" in done.stderr:
                return
            if words[1] in ("rm", "update", "scale") and "not found" in done.stderr:
                return
            assert time.monotonic() < deadline, f"{host}$ {argv}\n{done.stderr}"

    def _cut(self, dice: random.Random) -> None:
        for _ in range(self._measure.cuts):
            host = dice.choice([record.name for record in self._cluster.lab.hosts])
            self._cluster.lab.cut(host)
            time.sleep(dice.uniform(*self._measure.cut_s))
            self._cluster.lab.heal(host)
            time.sleep(dice.uniform(0.5, 2.0))


@contextlib.contextmanager
def burning(count: int) -> Iterator[None]:
    """Processes that do nothing but burn CPU."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


@dataclass
class Truth:
    """What the managers say, at rest."""

    services: dict[str, types_pb2.Service]
    networks: dict[str, types_pb2.Network]
    nodes: dict[str, types_pb2.Node]
    tasks: list[types_pb2.Task]

    def ready(self, service_id: str) -> list[types_pb2.Task]:
        return [task for task in self.tasks if task.service_id == service_id]

    def is_settled(self) -> bool:
        """All services have what they want, and nothing else is left of them."""
        counted: dict[str, int] = defaultdict(int)
        for task in self.tasks:
            if task.status.state != types_pb2.TASK_STATE_RUNNING or task.desired_state != types_pb2.TASK_STATE_RUNNING:
                return False
            counted[task.service_id] += 1
        return all(counted[service.id] == service.spec.replicas for service in self.services.values())


def truth(cluster: Cluster) -> Truth:
    socket_path = cluster.lab.root("n1") / "run/pyswarm/pyswarm.sock"
    with grpc.insecure_channel(f"unix:{socket_path}") as channel:
        stub: Any = control_pb2_grpc.ControlStub(channel)
        services = stub.ListServices(control_pb2.ListServicesRequest(), timeout=30).services
        networks = stub.ListNetworks(control_pb2.ListNetworksRequest(), timeout=30).networks
        nodes = stub.ListNodes(control_pb2.ListNodesRequest(), timeout=30).nodes
        tasks = stub.ListTasks(control_pb2.ListTasksRequest(), timeout=30).tasks
    first, last = HOLDS
    ours = {service.id: service for service in services if service.spec.name[1:].isdigit()}
    return Truth(
        ours,
        {network.id: network for network in networks},
        {node.id: node for node in nodes},
        [task for task in tasks if task.node_id and first <= task.status.state <= last and task.service_id in ours],
    )


def settled(cluster: Cluster) -> Truth:
    """Once the cluster has what was asked of it."""
    found: list[Truth] = []

    def is_settled() -> bool:
        found[:] = [truth(cluster)]
        return found[0].is_settled()

    eventually(is_settled, "every service has the tasks that it wants", 120.0)
    return found[0]


@dataclass
class Findings:
    """What is wrong, in words."""

    wrong: list[str] = field(default_factory=list)

    def compare(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.wrong.append(f"{what}: {found}, and not {wanted}")


def inspect(cluster: Cluster, known: Truth) -> list[str]:
    """Everything that is wrong on any node."""
    findings = Findings()
    check_addresses(findings, known)
    for node in known.nodes.values():
        check_kernel(cluster, findings, known, node)
        check_sight(cluster, findings, known, node)
    return findings.wrong


def bare(addresses: Iterable[str]) -> list[str]:
    return [address.partition("/")[0] for address in addresses]


def check_addresses(findings: Findings, known: Truth) -> None:
    """Nobody shares one with another."""
    held: dict[tuple[str, str], str] = {}
    holders = [
        *((n.network_id, a, task.id) for task in known.tasks for n in task.networks for a in bare(n.addresses)),
        *((v.network_id, v.address, s.id) for s in known.services.values() for v in s.endpoint.vips),
    ]
    for network_id, address, holder in holders:
        other = held.setdefault((network_id, address), holder)
        findings.compare(f"holder of {address}", other, holder)


def check_kernel(cluster: Cluster, findings: Findings, known: Truth, node: types_pb2.Node) -> None:
    """Sandboxes and their addresses, tunnels and neighbours."""
    host = node.description.hostname
    here = {task.id: task for task in known.tasks if task.node_id == node.id}
    run = "/run/pyswarm/network"
    sandboxes = set(cluster.on(host, "ls", f"{run}/netns").stdout.split())
    others = {task.id for task in _others(cluster, known, node)}
    findings.compare(f"sandboxes on {host}", sandboxes - others, set(here))
    for task in here.values():
        shown = read(cluster, host, f"{run}/netns/{task.id}", "ip", "-j", "-4", "address")
        held = {info["local"] for link in shown for info in link["addr_info"]}
        wanted = set(bare(a for n in task.networks for a in n.addresses))
        findings.compare(f"addresses in {task.id} on {host}", wanted - held, set())
    for network_id in {n.network_id for task in here.values() for n in task.networks}:
        check_tunnels(cluster, findings, known, node, network_id)


def _others(cluster: Cluster, known: Truth, node: types_pb2.Node) -> list[types_pb2.Task]:
    """Tasks there of services that are not ours: other tests may have left some in the lab."""
    socket_path = cluster.lab.root("n1") / "run/pyswarm/pyswarm.sock"
    with grpc.insecure_channel(f"unix:{socket_path}") as channel:
        stub: Any = control_pb2_grpc.ControlStub(channel)
        tasks = stub.ListTasks(control_pb2.ListTasksRequest(), timeout=30).tasks
    return [task for task in tasks if task.node_id == node.id and task.service_id not in known.services]


def read(cluster: Cluster, host: str, netns: str, *argv: str) -> Any:
    done = cluster.on(host, "nsenter", f"--net={netns}", *argv)
    assert done.returncode == 0, f"{host} {netns} {argv}: {done.stderr}"
    return json.loads(done.stdout or "[]")


def check_tunnels(cluster: Cluster, findings: Findings, known: Truth, node: types_pb2.Node, network_id: str) -> None:
    """Exactly the remote endpoints, each behind its own node."""
    host, where = node.description.hostname, f"/run/pyswarm/network/overlays/{network_id}"
    wanted: dict[str, str] = {}
    for task in known.tasks:
        if task.node_id != node.id:
            for attachment in task.networks:
                if attachment.network_id == network_id:
                    wanted.update(dict.fromkeys(bare(attachment.addresses), known.nodes[task.node_id].status.address))
    if known.networks[network_id].spec.ingress:
        for other in known.nodes.values():
            if other.id != node.id:
                wanted.update(dict.fromkeys(bare(other.ingress_addresses), other.status.address))
    macs = {
        entry["dst"]: entry["lladdr"]
        for entry in read(cluster, host, where, "ip", "-j", "-4", "neighbour", "show", "dev", "vxlan0")
        if "PERMANENT" in entry["state"]
    }
    ways = {
        entry["mac"]: entry["dst"]
        for entry in read(cluster, host, where, "bridge", "-j", "fdb", "show", "dev", "vxlan0")
        if "dst" in entry
    }
    findings.compare(f"neighbours of {network_id} on {host}", set(macs), set(wanted))
    found = {address: ways.get(mac, "nowhere") for address, mac in macs.items()}
    findings.compare(f"tunnels of {network_id} on {host}", found, wanted)
    findings.compare(f"tunnel entries of {network_id} on {host}", set(ways), set(macs.values()))


def check_sight(cluster: Cluster, findings: Findings, known: Truth, node: types_pb2.Node) -> None:
    """What a container of each network resolves and reaches there, and what a published port of the node leads to."""
    host = node.description.hostname
    ports = [(node.status.address, FIRST_PORT + int(s.spec.name[1:]), s) for s in known.services.values()]
    _ask(cluster, findings, known, f"published ports of {host}", host, "", ports, {})
    for network_id in known.networks:
        eye = next((t for t in known.tasks if t.node_id == node.id and _is_on(t, network_id)), None)
        if eye is None or known.networks[network_id].spec.ingress:
            continue
        vips, names = [], {}
        for service in known.services.values():
            for vip in (vip for vip in service.endpoint.vips if vip.network_id == network_id):
                vips.append((vip.address, 80, service))
                names[service.spec.name] = [vip.address]
                held = [bare(n.addresses)[0] for t in known.ready(service.id) for n in t.networks
                        if n.network_id == network_id]  # fmt: skip
                names[f"tasks.{service.spec.name}"] = sorted(held, key=lambda address: address)
        where = f"/run/pyswarm/network/netns/{eye.id}"
        _ask(cluster, findings, known, f"{known.networks[network_id].spec.name} on {host}", host, where, vips, names)


def _is_on(task: types_pb2.Task, network_id: str) -> bool:
    return any(attachment.network_id == network_id for attachment in task.networks)


def _ask(
    cluster: Cluster,
    findings: Findings,
    known: Truth,
    what: str,
    host: str,
    netns: str,
    places: list[tuple[str, int, types_pb2.Service]],
    names: dict[str, list[str]],
) -> None:
    """Twice as many requests as there are tasks, and each of them must have answered."""
    gets = [(address, port, max(2 * len(known.ready(s.id)), 1)) for address, port, s in places]
    enter = ("nsenter", f"--net={netns}") if netns else ()
    wanted = json.dumps({"names": list(names), "gets": gets})
    done = cluster.lab.exec(host, [*enter, sys.executable, PROBE], stdin=wanted)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    findings.compare(f"names of {what}", {name: sorted(found) for name, found in seen["names"].items()}, names)
    for (address, port, service), answers in zip(places, seen["gets"], strict=True):
        tasks = sorted(task.id for task in known.ready(service.id))
        if tasks:
            findings.compare(f"{service.spec.name} at {address}:{port} by {what}", answers, tasks)
        else:
            findings.compare(f"{address}:{port} by {what} answers", [a for a in answers if "Error" not in a], [])

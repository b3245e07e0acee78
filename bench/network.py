"""The data plane of a cluster: throughput, latency, new connections, how soon everybody knows, what an endpoint costs.

`suite_net` measures under the names of `docker_swarm/run.py net`, so that both stand in one table, and beside them what
Docker Swarm has no counterpart of here: a VXLAN tunnel made by hand on the same hosts (the floor of ours), virtual
addresses and published ports (IP_VS is absent on the reference machine), encryption. `suite_tables` measures 1,000
endpoints on five nodes.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.client import Client, service
from bench.docker_swarm.measure import Results, locked
from bench.labs import IMAGE, Accounting, client, cluster, warm
from bench.memory import cpu_s, pss_mib
from pyswarm_common.model import PortConfig
from pyswarm_lab import Lab

HERE = Path(__file__).parent
NETPROBE = str(HERE / "docker_swarm" / "netprobe.py")
PROBE = str(HERE / "network_probe.py")
PORT = 7777
PUBLISHED = 8077
BACKENDS = (1, 10, 100)
_BY_HAND = {"n2": "10.250.0.2", "n3": "10.250.0.3"}


@dataclass(frozen=True, slots=True)
class Place:
    """A network namespace of a lab host (the host's own if `netns` is empty) and the address it has there."""

    lab: Lab
    host: str
    address: str
    netns: str = ""

    def argv(self, *command: str) -> list[str]:
        """Not in the host's pid namespace: nsenter would fork for that, and its child outlive it."""
        init = self.lab.host(self.host).init
        assert init is not None
        enter = ["nsenter", f"--net={self.netns}"] if self.netns else []
        return ["nsenter", "-t", str(init.pid), "-m", "-n", "--", *enter, *command]

    def run(self, *command: str, timeout_s: float = 60.0) -> str:
        done = subprocess.run(self.argv(*command), capture_output=True, text=True, timeout=timeout_s, check=True)
        return done.stdout

    def probe(self, program: str, *arguments: object) -> Any:
        return json.loads(self.run(sys.executable, program, *map(str, arguments)))

    @contextlib.contextmanager
    def serving(self, *command: str, says: str) -> Iterator[None]:
        """While a server runs there."""
        server = subprocess.Popen(self.argv(*command), stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            while says not in server.stdout.readline():
                if server.poll() is not None:
                    raise RuntimeError(f"{command} ended with {server.returncode}")
            yield
        finally:
            server.kill()
            server.wait()
            server.stdout.close()


def suite_net(results: Results, repetitions: int) -> None:
    """Two workers (and a manager that carries no traffic): each path's latency and throughput, then connections."""
    with cluster(1, 2) as lab, client(lab) as api:
        warm(lab, api)
        plain, encrypted = _network(lab, "bench"), _network(lab, "secret", "--opt", "encrypted")
        paths = {"underlay node-node": (_host(lab, "n2"), _host(lab, "n3").address, _host(lab, "n3"))}
        paths["vxlan by hand"] = _by_hand(lab)
        for label, network_id in (("overlay cross-node", plain), ("encrypted cross-node", encrypted)):
            there, here = _container(lab, api, network_id, "n3"), _container(lab, api, network_id, "n2")
            paths[label] = (here, there.address, there)
            if network_id == plain:
                near = _container(lab, api, network_id, "n2")
                paths["overlay same node"] = (here, near.address, near)
                paths["vip cross-node"] = (here, _vip(lab, there), there)
        for path, (source, address, target) in paths.items():
            for _ in range(repetitions):
                _measure_path(results, lab, path, source, address, target)
        _measure_connections(results, lab, api, plain, repetitions)


def _network(lab: Lab, name: str, *options: str) -> str:
    return lab.exec("n1", ["pyswarm", "network", "create", *options, name], check=True).stdout.strip()


def _host(lab: Lab, name: str) -> Place:
    return Place(lab, name, lab.host(name).address)


def _by_hand(lab: Lab) -> tuple[Place, str, Place]:
    """What a tunnel costs without us: a device, an address, the peer as the only way."""
    peers = {"n2": "n3", "n3": "n2"}
    for name, peer in peers.items():
        here = _host(lab, name)
        link = f"ip link add hand0 type vxlan id 99 dstport 4999 local {here.address} remote {lab.host(peer).address}"
        here.run(*link.split())
        here.run("ip", "address", "add", f"{_BY_HAND[name]}/24", "dev", "hand0")
        here.run("ip", "link", "set", "hand0", "up")
    return _host(lab, "n2"), _BY_HAND["n3"], _host(lab, "n3")


def _container(lab: Lab, api: Client, network_id: str, host: str) -> Place:
    """One task of a service of its own on that host."""
    name = f"on-{host}-{time.monotonic_ns()}"
    spec = service(name, IMAGE, 1, network_id=network_id, constraints=(f"node.hostname=={host}",))
    [task] = api.wait_running(api.create_service(spec), 1)
    address = next(n.addresses[0] for n in task.networks if n.network_id == network_id).partition("/")[0]
    return Place(lab, host, address, f"/run/pyswarm/network/netns/{task.id}")


def _vip(lab: Lab, place: Place) -> str:
    """Of the service whose only task is there."""
    task = place.netns.rpartition("/")[2]
    name = lab.exec("n1", ["pyswarm", "task", "inspect", task, "--format", "{{.ServiceID}}"], check=True).stdout.strip()
    return _vip_of(lab, name)


def _vip_of(lab: Lab, service_id: str) -> str:
    words = ["pyswarm", "service", "inspect", service_id, "--format", "{{json .Endpoint.VirtualIPs}}"]
    vips = json.loads(lab.exec("n1", words, check=True).stdout)
    return str(vips[0]["Addr"]).partition("/")[0]


def _measure_path(results: Results, lab: Lab, path: str, source: Place, address: str, target: Place) -> None:
    params = {"path": path}
    with target.serving(sys.executable, NETPROBE, "serve", str(PORT), says="up"):
        for mode, count, metric in (("connect", 500, "tcp_connect_p50_us"), ("rr", 3000, "tcp_rr_p50_us")):
            with locked(Accounting(lab)) as window:
                found = source.probe(NETPROBE, mode, address, PORT, count)
                results.add(metric, found["p50_us"], "us", params, p99_us=found["p99_us"], **window.stats())
    for streams in (1, 4):
        with (
            target.serving("iperf3", "-s", "-1", "--forceflush", says="listening"),
            locked(Accounting(lab)) as window,
        ):
            found = json.loads(source.run("iperf3", "-c", address, "-t", "4", "-P", str(streams), "-J"))
            gbits = found["end"]["sum_received"]["bits_per_second"] / 1e9
            results.add("tcp_gbit_s", gbits, "Gbit/s", {**params, "streams": streams}, **window.stats())


def _measure_connections(results: Results, lab: Lab, api: Client, network_id: str, repetitions: int) -> None:
    """New connections a second: to one task, to a virtual address, to a published port, with more and more backends."""
    source = _container(lab, api, network_id, "n2")
    port = PortConfig(target_port=PORT, published_port=PUBLISHED)
    spec = service("many", IMAGE, 1, network_id=network_id, constraints=("node.hostname==n3",), ports=(port,))
    sid = api.create_service(spec)
    for backends in BACKENDS:
        api.scale(sid, backends)
        tasks = api.wait_running(sid, backends, 300)
        paths = [f"/run/pyswarm/network/netns/{task.id}" for task in tasks]
        direct = next(n.addresses[0] for n in tasks[0].networks if n.network_id == network_id).partition("/")[0]
        ways = {
            "direct": (source, direct, PORT),
            "vip": (source, _vip_of(lab, sid), PORT),
            "ingress": (_host(lab, "n1"), lab.host("n2").address, PUBLISHED),
        }
        with _host(lab, "n3").serving(sys.executable, PROBE, "serve", str(PORT), *paths, says="up"):
            for _ in range(repetitions):
                for way, (place, address, number) in ways.items():
                    with locked(Accounting(lab)) as window:
                        found = place.probe(PROBE, "rate", address, number, 3)
                        params = {"way": way, "backends": backends}
                        results.add("connections_per_s", found.pop("per_s"), "1/s", params, **found, **window.stats())


def suite_tables(results: Results, repetitions: int, count: int = 1000) -> None:
    """Five nodes, 1,000 endpoints on one network: from RUNNING to the last node's rules, and what an endpoint costs."""
    with cluster(1, 4) as lab, client(lab) as api:
        warm(lab, api)
        network_id = _network(lab, "big", "--subnet", "10.90.0.0/20")
        eyes = [_container(lab, api, network_id, host.name) for host in lab.hosts]
        before = {host.name: _daemon(lab, host.name) for host in lab.hosts}
        others = ("node.hostname!=n1",)
        crowd = api.create_service(service("crowd", IMAGE, count, network_id=network_id, constraints=others))
        api.wait_running(crowd, count, 600)
        time.sleep(5)
        _add_costs(results, before["n1"], _daemon(lab, "n1"), count)
        for number in range(max(repetitions, 5)):
            _measure_news(results, lab, api, network_id, eyes, number, count)


def _daemon(lab: Lab, host: str) -> tuple[float, float]:
    """(MiB, CPU seconds) of the host's daemon."""
    [process] = lab.processes(host, "pyswarmd")
    return pss_mib(process.pid), cpu_s(process.pid)


def _add_costs(results: Results, before: tuple[float, float], after: tuple[float, float], count: int) -> None:
    """On a node that runs none of them: the agent's share of a remote endpoint, from nothing to RUNNING."""
    params = {"endpoints": count}
    results.add("endpoint_memory_kib", (after[0] - before[0]) * 1024 / count, "KiB", params)
    results.add("endpoint_cpu_ms", (after[1] - before[1]) * 1000 / count, "ms", params)


def _measure_news(
    results: Results, lab: Lab, api: Client, network_id: str, eyes: list[Place], number: int, count: int
) -> None:
    """A service's first task: when does its virtual address answer on each node?"""
    name, host = f"late{number}", f"n{2 + number % 4}"
    serve = ("httpd", "-f", "-p", "80")
    spec = service(name, IMAGE, 0, network_id=network_id, constraints=(f"node.hostname=={host}",), command=serve)
    sid = api.create_service(spec)
    time.sleep(1)
    vip = _vip_of(lab, sid)
    watchers = [
        subprocess.Popen(eye.argv(sys.executable, PROBE, "reach", "20", vip), stdout=subprocess.PIPE, text=True)
        for eye in eyes
    ]
    time.sleep(1)
    api.scale(sid, 1)
    [task] = api.wait_running(sid, 1)
    seen = [json.loads(watcher.communicate()[0])[vip] for watcher in watchers]
    running = task.status.timestamp.ToNanoseconds() / 1e9
    params = {"endpoints": count, "nodes": len(eyes)}
    results.add("running_to_last_node_ms", (max(seen) - running) * 1000, "ms", params)
    api.remove_service(sid)
    api.wait_gone(sid)

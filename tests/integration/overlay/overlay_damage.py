"""Damages a host's networks at random, with the tools that administrators have, and waits for them to be whole again.

Run as a program for many: `python tests/integration/overlay/overlay_damage.py --number 1000 --seed 1` (as root).
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_reader import difference, everything
from overlay_lab import Host, Lab, ask, ask_udp, lab_of, visit

from pyswarm_overlay import (
    Attachment,
    EndpointRecord,
    HostPort,
    IngressBackend,
    IngressPort,
    NetworkTable,
    Sandbox,
    ServiceRecord,
)

DEADLINE_S = 10.0
NETWORKS = ("blue", "green")
BACKENDS = 3
SANDBOXES = tuple(f"{network}{number}" for network in NETWORKS for number in range(1, BACKENDS + 1))
Command = list[str]


def table(hosts: Sequence[Host], number: int, name: str) -> NetworkTable:
    """Three tasks here and one on the other host, all of one service."""
    endpoints = [endpoint(hosts[0], number, name, index) for index in range(1, BACKENDS + 1)]
    services = (ServiceRecord(service_id=f"s-{name}", name=f"web-{name}", vips=(f"10.0.{number}.2",)),)
    return NetworkTable(
        network_id=name,
        name=name,
        vni=5000 + number,
        subnets=(f"10.0.{number}.0/24",),
        version=1,
        endpoints=(*endpoints, endpoint(hosts[1], number, name, 9)),
        services=services,
    )


def endpoint(host: Host, number: int, name: str, index: int) -> EndpointRecord:
    return EndpointRecord(
        endpoint_id=f"t-{name}{index}",
        name=f"{name}.{index}",
        hostname=f"{name}{index}",
        addresses=(f"10.0.{number}.{10 + index}",),
        node_address=host.address,
        service_id=f"s-{name}",
        ready=True,
    )


def sandbox(number: int, name: str, index: int) -> Sandbox:
    attachments = [
        Attachment(network_id=name, endpoint_id=f"t-{name}{index}", addresses=(f"10.0.{number}.{10 + index}/24",))
    ]
    if name == "blue":
        attachments.append(
            Attachment(network_id="ingress", endpoint_id=f"i{index}", addresses=(f"10.255.0.{10 + index}/24",))
        )
    ports = (HostPort(published=9000 + index, target=80),) if name == "green" else ()
    return Sandbox(
        sandbox_id=f"{name}{index}", hostname=f"{name}{index}", attachments=tuple(attachments), host_ports=ports
    )


def ingress_table(hosts: Sequence[Host]) -> NetworkTable:
    tasks = [
        EndpointRecord(
            endpoint_id=f"i{index}",
            name=f"i{index}",
            addresses=(f"10.255.0.{10 + index}",),
            node_address=hosts[0].address,
        )
        for index in range(1, BACKENDS + 1)
    ]
    nodes = [
        EndpointRecord(
            endpoint_id=f"n{index}", name=f"n{index}", addresses=(f"10.255.0.{2 + index}",), node_address=host.address
        )
        for index, host in enumerate(hosts)
    ]
    return NetworkTable(
        network_id="ingress",
        name="ingress",
        vni=4999,
        subnets=("10.255.0.0/24",),
        ingress=True,
        version=1,
        endpoints=(*tasks, *nodes),
    )


def backend(host: Host, index: int) -> IngressBackend:
    return IngressBackend(
        endpoint_id=f"i{index}", ingress_addresses=(f"10.255.0.{10 + index}",), node_address=host.address
    )


def set_up(lab: Lab) -> Host:
    """The host that is to be damaged, with everything up on it and a verification that runs."""
    hosts = lab.hosts
    first, second = hosts
    for host in hosts:
        for number, name in enumerate(NETWORKS, 1):
            host.call("apply_table", table(hosts, number, name))
        host.call("apply_table", ingress_table(hosts))
    mine = [sandbox(number, name, index) for number, name in enumerate(NETWORKS, 1) for index in range(1, BACKENDS + 1)]
    first.call("attach_all", mine)
    others = [sandbox(number, name, 9) for number, name in enumerate(NETWORKS, 1)]
    second.call(
        "attach_all",
        [Sandbox(sandbox_id=one.sandbox_id, hostname=one.hostname, attachments=one.attachments[:1]) for one in others],
    )
    backends = tuple(backend(first, index) for index in range(1, BACKENDS + 1))
    port = IngressPort(published_port=8080, target_port=80, service_id="s-blue", backends=backends)
    first.call("set_ingress", ("10.255.0.2/24",), (port,))
    for name in SANDBOXES:
        lab.serve(first.netns(name), name)
    for name in NETWORKS:
        lab.serve(second.netns(f"{name}9"), f"{name}9")
    return first


def reading(host: Host) -> dict[str, Any]:
    return everything(host, list(SANDBOXES), [*NETWORKS, "ingress"])


def traffic(lab: Lab, host: Host) -> None:
    """Every kind of it, over every network."""
    for number, name in enumerate(NETWORKS, 1):
        members = {f"{name}{index}" for index in (*range(1, BACKENDS + 1), 9)}
        for index in range(1, BACKENDS + 1):
            answers = {host.visit(f"{name}{index}", lambda number=number: ask(f"10.0.{number}.2"))[0] for _ in range(8)}
            assert answers == members, answers
            assert host.visit(f"{name}{index}", lambda number=number: ask_udp(f"10.0.{number}.19"))[0] == f"{name}9"
    served = {visit(lab.outside, lambda: ask(host.address, 8080))[0] for _ in range(12)}
    assert served == {f"blue{index}" for index in range(1, BACKENDS + 1)}, served
    for index in range(1, BACKENDS + 1):
        assert visit(lab.outside, lambda index=index: ask(host.address, 9000 + index))[0] == f"green{index}"


@dataclass(slots=True)
class Damager:
    """Draws damage from `rng`; `done` counts what was done by kind."""

    host: Host
    rng: random.Random
    done: Counter[str] = field(default_factory=Counter)

    def damage(self) -> str:
        """One thing that can be damaged now; says what it was."""
        while True:
            where = self.rng.choice(("sandbox", "network", "host"))
            kind, path, command = getattr(self, f"_{where}")()
            if self._run(path, command):
                self.done[f"{where} {kind}"] += 1
                return f"{where} {kind}: {' '.join(command)}"

    def _run(self, path: str, command: Command) -> bool:
        enter = ["nsenter", "-t", str(self.host.pid), "-m"] if command[0] == "umount" else ["nsenter", f"--net={path}"]
        return subprocess.run([*enter, *command], capture_output=True, check=False).returncode == 0

    def _out(self, path: str, command: Command) -> str:
        done = subprocess.run(["nsenter", f"--net={path}", *command], capture_output=True, text=True, check=False)
        return done.stdout

    def _pick(self, kinds: dict[str, Callable[[], str]]) -> tuple[str, Command]:
        kind = self.rng.choice(sorted(kinds))
        return kind, kinds[kind]().split()

    def _sandbox(self) -> tuple[str, str, Command]:
        rng, name = self.rng, self.rng.choice(SANDBOXES)
        path, number = self.host.netns(name), 1 if name.startswith("blue") else 2
        dev = rng.choice(["eth0", "eth1", "eth2"] if number == 1 else ["eth0", "eth1"])
        vip = f"10.0.{number}.2"
        chain = rng.choice(self._chains(path) or ["ip ps_vip output"]).split()
        kinds: dict[str, Callable[[], str]] = {
            "link deleted": lambda: f"ip link del {dev}",
            "link down": lambda: f"ip link set {dev} down",
            "link MTU": lambda: f"ip link set {dev} mtu {rng.randrange(600, 1400)}",
            "link MAC": lambda: f"ip link set {dev} address 02:00:00:00:00:{rng.randrange(256):02x}",
            "link renamed": lambda: f"ip link set {dev} name odd{rng.randrange(100)}",
            "link ARP": lambda: f"ip link set {dev} arp off",
            "loopback down": lambda: "ip link set lo down",
            "address deleted": lambda: f"ip addr flush dev {dev}",
            "address added": lambda: f"ip addr add 10.0.{number}.{rng.randrange(100, 200)}/24 dev {dev}",
            "default route deleted": lambda: "ip route del default",
            "default route altered": lambda: f"ip route replace default via 10.0.{number}.77 dev eth0",
            "subnet route deleted": lambda: f"ip route del 10.0.{number}.0/24 dev eth0",
            "subnet route stolen": lambda: f"ip route add blackhole 10.0.{number}.{rng.randrange(10, 20)}/32",
            "own route deleted": lambda: f"ip route del table local local 10.0.{number}.{10 + int(name[-1])} dev eth0",
            "neighbour added": lambda: (
                f"ip neigh replace 10.0.{number}.19 lladdr 02:00:00:00:00:01 dev eth0 nud permanent"
            ),
            "rules flushed": lambda: "nft flush ruleset",
            "table deleted": lambda: f"nft delete table {' '.join(chain[:2])}",
            "chain flushed": lambda: f"nft flush chain {' '.join(chain)}",
            "rule added": lambda: f"nft insert rule {' '.join(chain)} counter drop",
            "table asleep": lambda: f"nft add table {' '.join(chain[:2])} {{ flags dormant; }}",
            "VIP deleted": lambda: f"nft delete element ip ps_vip vips {{ {vip} }}",
            "mount": lambda: f"umount {self.host.config.run_dir}/netns/{name}",
        }
        kind, command = self._pick(kinds)
        return kind, path, command

    def _chains(self, path: str) -> list[str]:
        """ "family table chain" of all of ours."""
        found, current = [], ""
        for line in self._out(path, ["nft", "list", "ruleset"]).splitlines():
            words = line.split()
            if words[:1] == ["table"]:
                current = f"{words[1]} {words[2]}"
            elif words[:1] == ["chain"]:
                found.append(f"{current} {words[1]}")
        return found

    def _network(self) -> tuple[str, str, Command]:
        rng, name = self.rng, self.rng.choice((*NETWORKS, "ingress"))
        path = self.host.overlay_netns(name)
        entries = [line.split() for line in self._out(path, ["bridge", "fdb", "show"]).splitlines()]
        remote = [entry[0] for entry in entries if "dst" in entry] or ["02:00:00:00:00:00"]
        mac = rng.choice(remote)
        neighbours = [
            line.split()[0] for line in self._out(path, ["ip", "neigh", "show", "nud", "permanent"]).splitlines()
        ]
        address = rng.choice(neighbours or ["10.0.9.9"])
        link = "vxlan0"
        kinds: dict[str, Callable[[], str]] = {
            "device deleted": lambda: f"ip link del {link}",
            "device down": lambda: f"ip link set {link} down",
            "device MTU": lambda: f"ip link set {link} mtu {rng.randrange(600, 1400)}",
            "device renamed": lambda: f"ip link set {link} name odd{rng.randrange(100)}",
            "stray device": lambda: f"ip link add stray{rng.randrange(100)} type {rng.choice(('veth', 'bridge'))}",
            "stray interface": lambda: f"ip link add stray{rng.randrange(100)} link vxlan0 type macvlan mode bridge",
            "tunnel moved": lambda: f"ip link set vxlan0 type vxlan local 192.0.2.{rng.randrange(3, 200)}",
            "tunnel entry deleted": lambda: f"bridge fdb del {mac} dev vxlan0",
            "tunnel entry altered": lambda: f"bridge fdb replace {mac} dev vxlan0 dst 192.0.2.{rng.randrange(3, 200)}",
            "tunnel entry added": lambda: (
                f"bridge fdb add 02:00:00:00:00:{rng.randrange(256):02x} dev vxlan0 dst 192.0.2.9"
            ),
            "neighbour deleted": lambda: f"ip neigh del {address} dev vxlan0",
            "neighbour altered": lambda: (
                f"ip neigh replace {address} lladdr 02:00:00:00:00:05 dev vxlan0 nud permanent"
            ),
            "neighbour added": lambda: (
                f"ip neigh add 10.0.1.{rng.randrange(100, 250)} lladdr 02:00:00:00:00:06 dev vxlan0 nud permanent"
            ),
            "mount": lambda: f"umount {self.host.config.run_dir}/overlays/{name}",
        }
        kind, command = self._pick(kinds)
        return kind, path, command

    def _host(self) -> tuple[str, str, Command]:
        rng, path = self.rng, self.host.netns()
        links = [
            line.split(":")[1].strip().partition("@")[0] for line in self._out(path, ["ip", "-o", "link"]).splitlines()
        ]
        port = rng.choice([link for link in links if link.startswith("ps-g")] or ["none"])
        link = rng.choice((port, "ps-ing"))
        chain = rng.choice([one for one in self._chains(path) if "ps_" in one] or ["ip ps_overlay ports"])
        ways = [line.split()[0] for line in self._out(path, ["ip", "route", "show", "dev", port]).splitlines()]
        way = rng.choice(ways or ["203.0.113.1"])
        kinds: dict[str, Callable[[], str]] = {
            "forwarding off": lambda: "sysctl -qw net.ipv4.ip_forward=0",
            "loopback routes off": lambda: f"sysctl -qw net.ipv4.conf.{link}.route_localnet=0",
            "device deleted": lambda: f"ip link del {link}",
            "device down": lambda: f"ip link set {link} down",
            "device MTU": lambda: f"ip link set {link} mtu {rng.randrange(600, 1400)}",
            "device ARP": lambda: f"ip link set {link} arp off",
            "address deleted": lambda: f"ip -4 addr flush dev {link}",
            "ingress MAC": lambda: "ip link set ps-ing address 02:00:00:00:00:78",
            "ingress address added": lambda: f"ip addr add 10.255.0.{rng.randrange(100, 200)}/24 dev ps-ing",
            "ingress route deleted": lambda: "ip route del 10.255.0.0/24 dev ps-ing",
            "way deleted": lambda: f"ip route del {way} dev {port}",
            "stray way": lambda: f"ip link add ps-g{rng.randrange(1 << 32):08x} type veth",
            "rules flushed": lambda: "nft flush ruleset",
            "table deleted": lambda: f"nft delete table {' '.join(chain.split()[:2])}",
            "chain flushed": lambda: f"nft flush chain {chain}",
            "rule added": lambda: f"nft insert rule {chain} counter drop",
        }
        kind, command = self._pick(kinds)
        return kind, path, command


def wait_whole(host: Host, wanted: dict[str, Any], damage: Sequence[str], deadline_s: float) -> float:
    """How long until an independent reader sees the wanted state again. AssertionError after the deadline."""
    began = time.monotonic()
    while True:
        odd = difference(wanted, reading(host))
        passed = time.monotonic() - began
        if not odd:
            return passed
        if passed > deadline_s:
            told = "\n".join(host.call("findings")[-20:])
            raise AssertionError("\n".join(["not healed:", *odd, "after:", *damage, "told:", told]))
        time.sleep(0.2)


def run(
    directory: Path, number: int, seed: int, at_once: int, deadline_s: float = DEADLINE_S
) -> tuple[list[float], Counter[str]]:
    """Times until everything was healed, one for each batch of damage, and what was damaged."""
    with lab_of(directory, hosts=2) as lab:
        for host in lab.hosts:
            host.start()
        host = set_up(lab)
        traffic(lab, host)
        wanted = reading(host)
        host.call("watch")
        damager, times = Damager(host, random.Random(seed)), []
        while sum(damager.done.values()) < number:
            damage = [damager.damage() for _ in range(min(at_once, number - sum(damager.done.values())))]
            times.append(wait_whole(host, wanted, damage, deadline_s))
        traffic(lab, host)
        assert host.call("verify") == []
        return times, damager.done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--at-once", type=int, default=5)
    arguments = parser.parse_args()
    sys.stdout.write(f"seed {arguments.seed}\n")
    with tempfile.TemporaryDirectory() as directory:
        times, done = run(Path(directory), arguments.number, arguments.seed, arguments.at_once)
    times.sort()
    for kind, number in sorted(done.items()):
        sys.stdout.write(f"{number:5} {kind}\n")
    middle, late = times[len(times) // 2], times[int(len(times) * 0.99)]
    sys.stdout.write(f"{sum(done.values())} damages of {len(done)} kinds, {arguments.at_once} at once: healed after\n")
    sys.stdout.write(f"median {middle:.2f} s, p99 {late:.2f} s, most {times[-1]:.2f} s\n")


if __name__ == "__main__":
    main()

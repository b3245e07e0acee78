"""Hosts of both families with an ingress network, and a client outside that is reached through a router.

The client lives in a namespace of its own behind the lab's switch, at an address that no host has a network of: what a
server sees is either that address or somebody else's.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from overlay_lab import TIMEOUT, Host, Lab, lab_of, visit

from pyswarm_overlay import (
    Attachment,
    EndpointRecord,
    HostPort,
    IngressBackend,
    IngressPort,
    NetworkTable,
    Sandbox,
)

INGRESS = "ingress"
CLIENT, CLIENT6 = "198.51.100.7", "2001:db8:7::7"
SERVICE = "s-web"
ANY_V6 = "::"


def six(host: Host) -> str:
    return "2001:db8::" + host.address.rsplit(".", 1)[1]


class PortsLab:
    """Hosts h1…, each with the tasks that `tasks` says: host index -> numbers."""

    def __init__(self, lab: Lab, tasks: dict[int, list[int]]) -> None:
        self.lab = lab
        self.hosts = lab.hosts
        self.tasks = tasks
        self._add_ipv6()
        self.client = self._add_client()
        self.version = 1

    def _add_ipv6(self) -> None:
        self._outside("address", "add", "2001:db8::fa/64", "dev", "sw0", "nodad")
        for host in self.hosts:
            host.run("ip", "address", "add", f"{six(host)}/64", "dev", "eth0", "nodad")
            host.run("ip", "route", "add", "default", "via", "192.0.2.250")
            host.run("ip", "route", "add", "default", "via", "2001:db8::fa")

    def _outside(self, *arguments: str) -> None:
        subprocess.run(["nsenter", f"--net={self.lab.outside}", "ip", *arguments], check=True)

    def _add_client(self) -> str:
        """Behind the switch's namespace, which routes."""
        sleeper = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        self.lab.sleepers.append(sleeper)
        self.lab.wait_for_namespace(sleeper)
        self._outside("link", "add", "c0", "type", "veth", "peer", "name", "eth0", "netns", str(sleeper.pid))
        self._outside("address", "add", "198.51.100.1/24", "dev", "c0")
        self._outside("address", "add", "2001:db8:7::1/64", "dev", "c0", "nodad")
        self._outside("link", "set", "c0", "up")
        for setting in ("ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1"):
            subprocess.run(["nsenter", f"--net={self.lab.outside}", "sysctl", "-qw", f"net.{setting}"], check=True)
        for command in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{CLIENT}/24", "dev", "eth0"),
            ("address", "add", f"{CLIENT6}/64", "dev", "eth0", "nodad"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", "198.51.100.1"),
            ("route", "add", "default", "via", "2001:db8:7::1"),
        ):
            subprocess.run(["nsenter", "-t", str(sleeper.pid), "-n", "ip", *command], check=True)
        return f"/proc/{sleeper.pid}/ns/net"

    def start(self) -> None:
        for host in self.hosts:
            host.start()

    def table(self) -> NetworkTable:
        nodes = [
            EndpointRecord(endpoint_id=f"n{number}", name="", addresses=_ingress(number), node_address=host.address)
            for number, host in enumerate(self.hosts, 2)
        ]
        tasks = [
            EndpointRecord(
                endpoint_id=f"t{number}",
                name=f"web.{number}",
                addresses=_ingress(number),
                node_address=self.hosts[index].address,
                service_id=SERVICE,
                ready=True,
            )
            for index, numbers in self.tasks.items()
            for number in numbers
        ]
        self.version += 1
        return NetworkTable(
            network_id=INGRESS,
            name="ingress",
            vni=4096,
            subnets=("10.9.0.0/24", "fd09::/64"),
            ingress=True,
            version=self.version,
            endpoints=(*nodes, *tasks),
        )

    def port(self, **changes: Any) -> IngressPort:
        backends = tuple(
            IngressBackend(
                endpoint_id=f"t{number}", ingress_addresses=_ingress(number), node_address=self.hosts[index].address
            )
            for index, numbers in self.tasks.items()
            for number in numbers
        )
        settings: dict[str, Any] = {"published_port": 8080, "target_port": 80, "service_id": SERVICE}
        return IngressPort(**{**settings, "backends": backends, **changes})

    def publish(self, *ports: IngressPort) -> None:
        """On every host, with the tasks that there are now."""
        for number, host in enumerate(self.hosts, 2):
            host.call("apply_table", self.table())
            host.call("set_ingress", [f"10.9.0.{number}/24", f"fd09::{number}/64"], list(ports))

    def attach(self, number: int, host_ports: Sequence[HostPort] = (), *, egress: bool = True) -> None:
        index = next(index for index, numbers in self.tasks.items() if number in numbers)
        addresses = (f"10.9.0.{number}/24", f"fd09::{number}/64")
        attachment = Attachment(network_id=INGRESS, endpoint_id=f"t{number}", addresses=addresses)
        sandbox = Sandbox(
            sandbox_id=f"c{number}", attachments=(attachment,), host_ports=tuple(host_ports), egress=egress
        )
        self.hosts[index].call("attach", sandbox)

    def netns(self, number: int) -> str:
        index = next(index for index, numbers in self.tasks.items() if number in numbers)
        return self.hosts[index].netns(f"c{number}")


def _ingress(number: int) -> tuple[str, ...]:
    return (f"10.9.0.{number}", f"fd09::{number}")


class Teller:
    """Answers TCP and UDP of both families at one port with its name and the address that it saw; echoes lines."""

    def __init__(self, netns: str, name: str, port: int = 80) -> None:
        self._name = name
        self._tcp, self._udp = visit(netns, lambda: _open(port))
        self._stop, self._stopper = os.pipe()
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    def _loop(self) -> None:
        while True:
            ready, _, _ = select.select([self._tcp, self._udp, self._stop, *self._held], [], [])
            if self._stop in ready:
                return
            for one in ready:
                if one is self._udp:
                    _, sender = self._udp.recvfrom(4096)
                    self._udp.sendto(f"{self._name} {_plainly(sender[0])}".encode(), sender)
                elif one is self._tcp:
                    connection, peer = self._tcp.accept()
                    self._held.append(connection)
                    connection.sendall(f"{self._name} {_plainly(peer[0])}\n".encode())
                elif isinstance(one, socket.socket):
                    self._echo(one)

    def _echo(self, connection: socket.socket) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = connection.recv(1 << 16)
            if data:
                connection.sendall(data)
        if not data:
            self._held.remove(connection)
            connection.close()

    def close(self) -> None:
        os.write(self._stopper, b"x")
        self._thread.join()
        for one in (self._tcp, self._udp, *self._held):
            one.close()
        os.close(self._stop)
        os.close(self._stopper)


def _open(port: int) -> tuple[socket.socket, socket.socket]:
    tcp = socket.create_server((ANY_V6, port), family=socket.AF_INET6, dualstack_ipv6=True)
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind((ANY_V6, port))
    return tcp, udp


def _plainly(address: str) -> str:
    return address.removeprefix("::ffff:")


def ask(netns: str, address: str, port: int = 8080) -> tuple[str, str]:
    """(task, client as it saw it) by TCP."""

    def connect() -> tuple[str, str]:
        with socket.create_connection((address, port), timeout=TIMEOUT) as connection:
            name, seen = connection.makefile().readline().split()
            return name, seen

    return visit(netns, connect)


def ask_udp(netns: str, address: str, port: int = 8080, *, source_port: int = 0) -> tuple[str, str]:
    def send() -> tuple[str, str]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.settimeout(TIMEOUT)
            if source_port:
                sender.bind((ANY_V6 if family == socket.AF_INET6 else "0.0.0.0", source_port))
            sender.connect((address, port))
            sender.send(b"?")
            name, seen = sender.recv(4096).decode().split()
            return name, seen

    return visit(netns, send)


def dial(netns: str, address: str, port: int = 8080, *, source_port: int = 0) -> socket.socket:
    """A connection that stays open, its first line read."""

    def connect() -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(TIMEOUT)
        if source_port:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind((ANY_V6 if family == socket.AF_INET6 else "0.0.0.0", source_port))
        connection.connect((address, port))
        connection.recv(4096)
        return connection

    return visit(netns, connect)


def was_reset(connection: socket.socket, within: float = TIMEOUT) -> bool:
    """Whether the connection ends with a reset while its client only waits (at most so long)."""
    try:
        connection.settimeout(within)
        return connection.recv(4096) == b"never"
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def linger_not(connection: socket.socket) -> None:
    """Close by reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextlib.contextmanager
def ports_lab(directory: Path, tasks: dict[int, list[int]], hosts: int = 3) -> Iterator[PortsLab]:
    with lab_of(directory, hosts=hosts) as lab:
        yield PortsLab(lab, tasks)

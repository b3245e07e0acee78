"""Hosts for the overlay tests: namespaces joined by a bridge in a namespace of its own, kept by sleeping processes.

Nothing has a name outside the lab and nothing is made in the machine's own namespaces, so ending the sleepers ends all.
The test process itself visits a namespace in a thread, to open sockets there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pyswarm_overlay import OverlayConfig
from pyswarm_overlay.kernel import libc
from pyswarm_overlay.resolving.link import ResolverLink

T = TypeVar("T")
DAEMON = Path(__file__).with_name("overlay_daemon.py")
ROOT = Path(__file__).parents[3]
TIMEOUT = 5.0


class Refused(Exception):
    """An error that the daemon answered with."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


def visit(path: str, function: Callable[[], T]) -> T:
    """Call `function` in a thread inside the network namespace at `path`."""
    result: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            fd = os.open(path, os.O_RDONLY)
            libc.setns(fd)
            os.close(fd)
            result.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]


class Daemon:
    """One overlay daemon process inside a host."""

    def __init__(self, host: Host) -> None:
        command = ["nsenter", "-t", str(host.pid), "-m", "-n", sys.executable, str(DAEMON)]
        config = msgspec.json.encode(host.config, enc_hook=str).decode()
        paths = os.pathsep.join(str(ROOT / part) for part in ("overlay", "common"))
        self.process = subprocess.Popen(
            [*command, config], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}
        )
        self._read()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise EOFError(f"the daemon ended with {self.process.wait()}")
        answer = msgspec.json.decode(line)
        if "error" in answer:
            raise Refused(answer["error"], answer["message"])
        return answer["ok"]

    def call(self, method: str, *arguments: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode([method, arguments]) + b"\n")
        self.process.stdin.flush()
        return self._read()

    def end(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self.process.kill()
        self.process.wait()


class Host:
    """A network and a mount namespace with an underlay address, and the daemon in them."""

    def __init__(self, lab: Lab, number: int, directory: Path) -> None:
        self.lab = lab
        self.address = f"192.0.2.{number}"
        self.sleeper = subprocess.Popen(["unshare", "-n", "-m", "--propagation", "private", "sleep", "infinity"])
        lab.sleepers.append(self.sleeper)
        lab.wait_for_namespace(self.sleeper)
        self.pid = self.sleeper.pid
        mounted = ["mount", "-t", "tmpfs", "-o", "mode=755,size=1m", "tmpfs", "/run"]
        subprocess.run(["nsenter", "-t", str(self.pid), "-m", *mounted], check=True)
        self.config = OverlayConfig(
            run_dir=directory / f"h{number}" / "run",
            state_dir=directory / f"h{number}" / "state",
            node_address=self.address,
            upstream_dns=("192.0.2.250",),
        )
        lab.plug(self.pid, f"h{number}", self.address)
        self.daemon: Daemon | None = None

    def start(self) -> None:
        self.daemon = Daemon(self)

    def kill(self) -> None:
        if self.daemon is not None:
            self.daemon.end()
            self.daemon = None

    def end_names(self) -> None:
        """The process that answers names outlives the daemon."""
        asyncio.run(ResolverLink.of(self.config).stop())

    def call(self, method: str, *arguments: Any) -> Any:
        assert self.daemon is not None
        return self.daemon.call(method, *arguments)

    def netns(self, sandbox_id: str | None = None) -> str:
        if sandbox_id is None:
            return f"/proc/{self.pid}/ns/net"
        return f"/proc/{self.pid}/root{self.config.run_dir}/netns/{sandbox_id}"

    def overlay_netns(self, network_id: str) -> str:
        return f"/proc/{self.pid}/root{self.config.run_dir}/overlays/{network_id}"

    def visit(self, sandbox_id: str | None, function: Callable[[], T]) -> T:
        return visit(self.netns(sandbox_id), function)

    def run(self, *command: str, netns: str | None = None) -> str:
        where = netns or self.netns()
        done = subprocess.run(["nsenter", f"--net={where}", *command], capture_output=True, text=True, check=True)
        return done.stdout

    def end_tunnels(self) -> None:
        """The processes of tunnels outlive the daemon: those in this host's namespace end here."""
        own = Path(self.netns()).readlink()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (
                    process.joinpath("comm").read_text() == "wireguard-go\n"
                    and (process / "ns" / "net").readlink() == own
                ):
                    os.kill(int(process.name), signal.SIGKILL)

    def mounts(self) -> list[str]:
        table = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        return [line for line in table if str(self.config.run_dir) in line]


class Lab:
    """Hosts on one bridge. Use as a context manager."""

    def __init__(self, directory: Path, hosts: int) -> None:
        self.sleepers: list[subprocess.Popen[bytes]] = []
        self.servers: list[Server] = []
        self.switch = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        self.sleepers.append(self.switch)
        self.wait_for_namespace(self.switch)
        self._ip("link", "add", "sw0", "type", "bridge")
        self._ip("link", "set", "sw0", "up")
        self._ip("address", "add", "192.0.2.250/24", "dev", "sw0")
        self.hosts = [Host(self, number, directory) for number in range(1, hosts + 1)]

    @staticmethod
    def wait_for_namespace(process: subprocess.Popen[bytes]) -> None:
        """unshare has done its work once it has become sleep."""
        while Path(f"/proc/{process.pid}/comm").read_text().strip() != "sleep":
            if process.poll() is not None:
                raise RuntimeError("unshare failed")

    @property
    def outside(self) -> str:
        """The namespace of the switch stands for the world outside, at 192.0.2.250."""
        return f"/proc/{self.switch.pid}/ns/net"

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["nsenter", "-t", str(self.switch.pid), "-n", "ip", *arguments], check=True)

    def plug(self, pid: int, name: str, address: str) -> None:
        self._ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self._ip("link", "set", name, "master", "sw0", "up")
        for command in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
        ):
            subprocess.run(["nsenter", "-t", str(pid), "-n", "ip", *command], check=True)

    def serve(self, netns: str, name: str, port: int = 80) -> Server:
        server = Server(netns, name, port)
        self.servers.append(server)
        return server

    def close(self) -> None:
        for server in self.servers:
            server.close()
        for host in getattr(self, "hosts", []):
            host.kill()
            host.end_tunnels()
        for process in self.sleepers:
            process.kill()
            process.wait()
        for host in getattr(self, "hosts", []):
            host.end_names()


class Server:
    """Answers TCP and UDP at one port with its name and the client's address; lives in the test process."""

    def __init__(self, netns: str, name: str, port: int) -> None:
        self._name = name
        self._tcp, self._udp = visit(netns, lambda: self._open(port))
        self._stop, self._stopper = os.pipe()
        self.peers: list[str] = []
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    @staticmethod
    def _open(port: int) -> tuple[socket.socket, socket.socket]:
        tcp = socket.create_server(("0.0.0.0", port))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("0.0.0.0", port))
        return tcp, udp

    def _loop(self) -> None:
        while True:
            ready, _, _ = select.select([self._tcp, self._udp, self._stop, *self._held], [], [])
            if self._stop in ready:
                return
            for sock in ready:
                if sock is self._udp:
                    _, sender = self._udp.recvfrom(4096)
                    self._udp.sendto(f"{self._name} {sender[0]}".encode(), sender)
                elif sock is self._tcp:
                    connection, peer = self._tcp.accept()
                    self.peers.append(peer[0])
                    self._held.append(connection)
                    connection.sendall(f"{self._name} {peer[0]}\n".encode())
                elif isinstance(sock, socket.socket):
                    self._echo(sock)

    def _echo(self, connection: socket.socket) -> None:
        """Whatever comes on an open connection is answered with the name, until the client closes."""
        try:
            alive = bool(connection.recv(4096))
            if alive:
                connection.sendall(f"{self._name}\n".encode())
        except OSError:
            alive = False
        if not alive:
            self._held.remove(connection)
            connection.close()

    def close(self) -> None:
        os.write(self._stopper, b"x")
        self._thread.join()
        for connection in (self._tcp, self._udp, *self._held):
            connection.close()
        os.close(self._stop)
        os.close(self._stopper)


def ask(address: str, port: int = 80) -> list[str]:
    """In the calling thread's namespace: connect and read the server's [name, client address]."""
    with socket.create_connection((address, port), timeout=TIMEOUT) as connection:
        return connection.makefile().readline().split()


def ask_udp(address: str, port: int = 80) -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        sock.connect((address, port))
        sock.send(b"?")
        return sock.recv(4096).decode().split()


@contextlib.contextmanager
def lab_of(directory: Path, hosts: int) -> Iterator[Lab]:
    lab = Lab(directory, hosts)
    try:
        yield lab
    finally:
        lab.close()

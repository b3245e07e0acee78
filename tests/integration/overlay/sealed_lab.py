"""What the tests of encrypted networks share: the managers' part, streams that count, and an ear on the wire."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from overlay_lab import Host, visit
from test_overlay_kernel import box

from pyswarm_overlay import EndpointRecord, NetworkTable, Sandbox
from pyswarm_overlay.encryption.types import TunnelKey, TunnelPeer

NET = "net1"
VNI = 4097
VXLAN_PORT = 4789
MARKER = b"everybody-could-read-this"
DEADLINE_S = 60.0
_ALL_PROTOCOLS, _SO_RCVBUFFORCE = 0x0003, 33
_COUNTER = struct.Struct("!IQ")


def sealed_table(*endpoints: EndpointRecord, version: int = 1) -> NetworkTable:
    return NetworkTable(
        network_id=NET,
        name="sealed",
        vni=VNI,
        subnets=("10.0.1.0/24",),
        gateways=("10.0.1.1",),
        options={"encrypted": ""},
        version=version,
        endpoints=endpoints,
    )


def on(host: Host, number: int) -> EndpointRecord:
    return EndpointRecord(
        endpoint_id=f"t{number}", name=f"web.{number}", addresses=(f"10.0.1.{number}",), node_address=host.address
    )


def sealed_box(number: int) -> Sandbox:
    return box(number)


def wait_until(what: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.02)


def keys_of(host: Host) -> tuple[TunnelKey, ...]:
    said = host.call("tunnel_keys")
    return tuple(TunnelKey(**{**key, "public_key": b64decode(key["public_key"])}) for key in said)


class Managers:
    """Tell every host of the others' keys, whenever these have changed."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = hosts
        self._told: dict[str, tuple[TunnelKey, ...]] = {}
        self.history: dict[str, set[bytes]] = {host.address: set() for host in hosts}
        """Every key that was ever announced, by host."""

    def relay(self) -> None:
        now = {host.address: keys_of(host) for host in self._hosts}
        for address, keys in now.items():
            self.history[address].update(key.public_key for key in keys)
        if now == self._told:
            return
        self._told = now
        for host in self._hosts:
            peers = [
                TunnelPeer(node_id=address, address=address, keys=keys)
                for address, keys in now.items()
                if address != host.address
            ]
            host.call("update_peers", peers, [], True)

    def has_rotated(self, times: int) -> bool:
        """Every host so many times, and nothing is under way."""
        self.relay()
        settled = all(len(keys) == 1 for keys in self._told.values())
        return settled and all(len(keys) > times for keys in self.history.values())

    def rotate(self, times: int) -> None:
        for done in range(times):
            for host in self._hosts:
                host.call("rotate")
            wait_until(lambda wanted=done + 1: self.has_rotated(wanted), f"rotation {done + 1} does not end")


class Wire:
    """All frames between the hosts, as the switch sees them."""

    def __init__(self, outside: str, marker: bytes = MARKER) -> None:
        self._marker = marker
        self._socket = visit(outside, self._open)
        self._stop = threading.Event()
        self.frames = self.readable = self.vxlan = self.sealed = 0
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    @staticmethod
    def _open() -> socket.socket:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        return packets

    def _listen(self) -> None:
        while not self._stop.is_set() or select.select([self._socket], [], [], 0)[0]:
            if select.select([self._socket], [], [], 0.05)[0]:
                self._count(self._socket.recv(1 << 16))

    def _count(self, frame: bytes) -> None:
        self.frames += 1
        self.readable += self._marker in frame
        kind, protocol = frame[12:14], b""
        if kind == b"\x08\x00":
            protocol, ports = frame[23:24], frame[34:38]
        elif kind == b"\x86\xdd":
            protocol, ports = frame[20:21], frame[54:58]
        if protocol == b"\x11":
            target = int.from_bytes(ports[2:4], "big")
            self.vxlan += target == VXLAN_PORT
            self.sealed += 51820 <= target < 51852

    def stop(self) -> Wire:
        self._stop.set()
        self._thread.join()
        self._socket.close()
        return self


class Streams:
    """Numbered datagrams from some sandboxes to others; which of them arrived."""

    def __init__(self, ways: Iterable[tuple[Host, int, Host, int]], period_s: float = 0.005) -> None:
        """Each way: host and number of the sender, host and number of the receiver. All on NET."""
        self._period_s = period_s
        self._stop = threading.Event()
        self._ends = threading.Event()
        self._ways = list(ways)
        self.sent = [0] * len(self._ways)
        self.got: list[set[int]] = [set() for _ in self._ways]
        self._targets = {(host.address, number): host for _, _, host, number in self._ways}
        self._receivers = {key: visit(host.netns(f"c{key[1]}"), _receiver) for key, host in self._targets.items()}
        self._senders = [visit(host.netns(f"c{number}"), _sender) for host, number, _, _ in self._ways]
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._stop.wait(self._period_s):
            for way, (sender, (_, _, _, number)) in enumerate(zip(self._senders, self._ways, strict=True)):
                try:
                    sender.sendto(_COUNTER.pack(way, self.sent[way]) + MARKER, (f"10.0.1.{number}", 9999))
                except OSError:
                    continue  # no way there now: not sent
                self.sent[way] += 1

    def _receive(self) -> None:
        sockets = list(self._receivers.values())
        while not self._ends.is_set():
            for ready in select.select(sockets, [], [], 0.05)[0]:
                way, number = _COUNTER.unpack_from(ready.recv(2048))
                self.got[way].add(number)

    def wait_all_arrive(self) -> None:
        """Every way works: something that is sent from now on arrives."""
        begun = list(self.sent)
        wait_until(
            lambda: all(
                any(number >= start for number in list(got)) for start, got in zip(begun, self.got, strict=True)
            ),
            "not every stream arrives",
        )

    def lost_since(self, begun: Sequence[int]) -> list[int]:
        """Ends the streams; how many of each that were sent since then did not arrive."""
        self._stop.set()
        self._threads[0].join()
        wanted = [set(range(start, end)) for start, end in zip(begun, self.sent, strict=True)]
        deadline = time.monotonic() + 2.0
        while any(w - g for w, g in zip(wanted, self.got, strict=True)) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.close()
        return [len(w - g) for w, g in zip(wanted, self.got, strict=True)]

    def close(self) -> None:
        self._stop.set()
        self._ends.set()
        for thread in self._threads:
            thread.join()
        for one in (*self._senders, *self._receivers.values()):
            one.close()


def _receiver() -> socket.socket:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
    receiver.bind(("0.0.0.0", 9999))
    return receiver


def _sender() -> socket.socket:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setblocking(False)
    return sender


def process_of(host: Host, device: str = "ps-wg0") -> int:
    """The process that is the device."""
    path = f"/proc/{host.pid}/root/run/wireguard/{device}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("=iii", credentials)[0])


def inner_netns(host: Host) -> str:
    return f"/proc/{host.pid}/root{host.config.run_dir}/tunnels/inner"


def run_files(host: Host) -> list[Path]:
    return [path for path in Path(f"/proc/{host.pid}/root{host.config.run_dir}").rglob("*") if path.is_file()]

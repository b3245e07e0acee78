"""Every frame that crosses a lab's switch, and what can be said of them.

As a program (`python wire_capture.py FILE`, in the switch's network namespace) it writes frames to a file until its
standard input ends, and then says how many the kernel dropped. `Capture` starts and stops it; `Wire` reads the file.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_ALL_PROTOCOLS, _OUTGOING, _SO_RCVBUFFORCE = 0x0003, 4, 33
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_BUFFER = 256 << 20
_MAX_FRAME = 1 << 17
_LENGTH = struct.Struct("!I")
_IPV4, _TCP = 0x0800, 6
_HANDSHAKE, _ALERT, _CLIENT_HELLO, _SERVER_HELLO, _SUPPORTED_VERSIONS = 22, 21, 1, 2, 43
TLS_1_3 = 0x0304


# ---------------------------------------------------------------- capturing


def capture(path: str) -> None:
    """Frames as they enter the switch: those that leave it are the same ones again."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    buffer = bytearray(_MAX_FRAME)
    with Path(path).open("wb") as file:
        print("capturing", flush=True)
        while True:
            readable, _, _ = select.select([packets, sys.stdin], [], [])
            if packets in readable:
                size, address = packets.recvfrom_into(buffer)
                if address[2] != _OUTGOING:
                    file.write(_LENGTH.pack(size))
                    file.write(memoryview(buffer)[:size])
            elif sys.stdin in readable:
                break
    _, dropped = struct.unpack("II", packets.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    print(json.dumps({"dropped": dropped}), flush=True)


class Capture:
    """The program above, in the network namespace of a process."""

    def __init__(self, pid: int, path: Path) -> None:
        self._path = path
        argv = ["nsenter", "-t", str(pid), "-n", "--", sys.executable, __file__, str(path)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "capturing\n"

    def stop(self) -> Wire:
        """All frames so far; not one may be missing."""
        said, _ = self._process.communicate(timeout=60)
        assert json.loads(said) == {"dropped": 0}
        return Wire(self._path)

    def abandon(self) -> None:
        """Whatever happened."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.communicate()


# ---------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class End:
    address: str
    port: int


@dataclass(slots=True)
class Half:
    """What one side of a TCP connection sent."""

    first: int | None = None
    """Sequence number of the first byte; None if the connection was there before the capture."""
    pieces: list[tuple[int, bytes]] = field(default_factory=list)

    def stream(self) -> bytes:
        """The bytes in order; what came twice is there once."""
        if not self.pieces:
            return b""
        first = self.pieces[0][0] if self.first is None else self.first
        content = bytearray()
        for sequence, data in self.pieces:
            at = (sequence - first) & 0xFFFFFFFF
            if at < 1 << 31:
                content.extend(bytes(max(0, at + len(data) - len(content))))
                content[at : at + len(data)] = data
        return bytes(content)


class Wire:
    """A capture that has ended."""

    def __init__(self, path: Path) -> None:
        self.raw = path.read_bytes()
        self.halves: dict[tuple[End, End], list[Half]] = defaultdict(list)
        for frame in self._frames():
            self._add(frame)

    def _frames(self) -> Iterator[bytes]:
        at = 0
        while at < len(self.raw):
            (size,) = _LENGTH.unpack_from(self.raw, at)
            yield self.raw[at + _LENGTH.size : at + _LENGTH.size + size]
            at += _LENGTH.size + size

    def _add(self, frame: bytes) -> None:
        if len(frame) < 34 or int.from_bytes(frame[12:14], "big") != _IPV4 or frame[23] != _TCP:
            return
        packet = frame[14:]
        segment = packet[(packet[0] & 15) * 4 : int.from_bytes(packet[2:4], "big") or len(packet)]
        source, target, sequence = struct.unpack_from("!HHI", segment)
        ends = End(socket.inet_ntoa(packet[12:16]), source), End(socket.inet_ntoa(packet[16:20]), target)
        data, is_syn = segment[(segment[12] >> 4) * 4 :], bool(segment[13] & 2)
        halves = self.halves[ends]
        if is_syn and (not halves or halves[-1].first != (sequence + 1) & 0xFFFFFFFF):
            halves.append(Half((sequence + 1) & 0xFFFFFFFF))  # a port may be used again
        if data:
            if not halves:
                halves.append(Half())
            halves[-1].pieces.append((sequence, data))

    def connections(self) -> Iterator[tuple[End, End, bytes, bytes]]:
        """Client, server, and what each of them sent, of the TCP connections whose beginning was seen."""
        for (client, server), halves in list(self.halves.items()):
            answers = self.halves.get((server, client), [])
            if client.port < server.port or len(halves) != len(answers):
                continue
            for asked, answered in zip(halves, answers, strict=True):
                if asked.first is not None and answered.first is not None:
                    yield client, server, asked.stream(), answered.stream()

    def streams(self) -> bytes:
        """All that was sent over TCP, put together again."""
        return b"\0".join(half.stream() for halves in self.halves.values() for half in halves)


def begins_with_client_hello(stream: bytes) -> bool:
    return len(stream) > 5 and stream[0] == _HANDSHAKE and stream[1] == 3 and stream[5] == _CLIENT_HELLO


def is_only_alert(stream: bytes) -> bool:
    return stream[:1] == bytes([_ALERT]) and len(stream) == 7


def tls_version(stream: bytes) -> int:
    """What a server chose, by its ServerHello: the supported_versions extension, which only TLS 1.3 has there."""
    assert stream[0] == _HANDSHAKE, stream[:16]
    assert stream[5] == _SERVER_HELLO, stream[:16]
    hello = stream[9 : 9 + int.from_bytes(stream[6:9], "big")]
    at = 34 + 1 + hello[34] + 3  # version and random, session id, cipher suite and compression
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 2
    while at < end:
        kind, size = struct.unpack_from("!HH", hello, at)
        if kind == _SUPPORTED_VERSIONS:
            return int.from_bytes(hello[at + 4 : at + 6], "big")
        at += 4 + size
    return int.from_bytes(hello[:2], "big")


if __name__ == "__main__":
    capture(sys.argv[1])

"""Netlink, as little as the overlay needs: messages in a batch, their acknowledgements, and dumps.

Building a message with a general library costs a few tenths of a millisecond; attaching a container takes about
thirty, so they are packed here by hand. A socket belongs to the namespace of the thread that opened it, for ever, and
may then be used from any thread (one at a time: it locks itself).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 1
NLM_F_ACK = 4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_DUMP_INTR = 0x10
_NLA_F_NESTED = 0x8000
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_BATCH = 32
_RECEIVE = 1 << 17
_DUMP_TRIES = 5
_TIMEOUT_S = 10.0
_SO_SNDBUFFORCE = 32
_SIOCGSKNS, _SIOCGIFINDEX = 0x894C, 0x8933
_IFREQ = struct.Struct("=16si20x")
_MAX_BATCH = 8 << 20


class KernelRefusal(OSError):
    """The kernel refused one message of a batch."""


class Message:
    """One request: its type, flags and body; `allow` lists the errors that mean "already so"."""

    __slots__ = ("allow", "body", "flags", "kind", "what")

    def __init__(self, what: str, kind: int, flags: int, body: bytes, allow: tuple[int, ...] = ()) -> None:
        self.what = what
        self.kind = kind
        self.flags = flags
        self.body = body
        self.allow = allow


def attr(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return _ATTR.pack(length, kind) + payload + b"\0" * (-length % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    return attr(kind | _NLA_F_NESTED, b"".join(parts))


def u32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    return attr(kind, value.encode() + b"\0")


class Netlink:
    """A netlink socket of the namespace in which it was made."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        if protocol == NETLINK_NETFILTER:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _MAX_BATCH)
        self._socket.bind((0, 0))
        self._socket.settimeout(_TIMEOUT_S)
        self.port = int(self._socket.getsockname()[0])
        """By which the kernel tells others who changed something."""
        self._sequence = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Waits for a request that is under way in another thread."""
        with self._lock:
            self._socket.close()

    def namespace(self) -> int:
        """A descriptor of the namespace that this socket belongs to."""
        with self._lock:
            return int(fcntl.ioctl(self._socket, _SIOCGSKNS))

    def index_of(self, name: str) -> int:
        """Of an interface that is there. Unlike netlink's own answer, this one waits for no other change of links."""
        with self._lock:
            answer = fcntl.ioctl(self._socket, _SIOCGIFINDEX, _IFREQ.pack(name.encode(), 0))
        return int(_IFREQ.unpack(answer)[1])

    def transact(self, messages: Sequence[Message]) -> None:
        """Send all and wait for every acknowledgement; raises the first refusal, after the batch it is in."""
        with self._lock:
            for start in range(0, len(messages), _BATCH):
                self._batch(messages[start : start + _BATCH])

    def _batch(self, messages: Sequence[Message]) -> None:
        waiting: dict[int, Message] = {}
        packed = []
        for message in messages:
            self._sequence += 1
            waiting[self._sequence] = message
            packed.append(_pack(message, self._sequence, NLM_F_REQUEST | NLM_F_ACK))
        self._socket.send(b"".join(packed))
        refusal: KernelRefusal | None = None
        while waiting:
            for kind, _flags, sequence, body in _messages(self._socket.recv(_RECEIVE)):
                done = waiting.pop(sequence, None) if kind == _NLMSG_ERROR else None
                if done is not None and refusal is None:
                    refusal = _refusal(done, body)
        if refusal is not None:
            raise refusal

    def run_batch(self, make: Callable[[int], tuple[bytes, int]]) -> None:
        """Send an nftables transaction that `make` builds from a sequence number on; it tells the last one it used.

        The kernel does all of it, or none and says why.
        """
        with self._lock:
            data, last = make(self._sequence + 1)
            self._sequence = last + 1
            self._socket.send(data)
            while True:
                for kind, _flags, sequence, body in _messages(self._socket.recv(_RECEIVE)):
                    code = -struct.unpack_from("=i", body)[0] if kind == _NLMSG_ERROR else 0
                    if code:
                        self._drain()
                        raise KernelRefusal(code, f"nftables transaction: {os.strerror(code)}")
                    if kind == _NLMSG_ERROR and sequence == last:
                        return

    def _drain(self) -> None:
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(_RECEIVE)
        self._socket.settimeout(_TIMEOUT_S)

    def dump(self, message: Message) -> list[bytes]:
        """The bodies of a dump; asked again when the kernel says that it changed meanwhile."""
        with self._lock:
            for _ in range(_DUMP_TRIES):
                found = self._dump_once(message)
                if found is not None:
                    return found
        raise KernelRefusal(errno.EINTR, f"{message.what}: kept changing while it was read")

    def _dump_once(self, message: Message) -> list[bytes] | None:
        self._sequence += 1
        self._socket.send(_pack(message, self._sequence, NLM_F_REQUEST | NLM_F_DUMP))
        bodies: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, sequence, body in _messages(self._socket.recv(_RECEIVE)):
                if sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
                if kind == _NLMSG_DONE:
                    return None if interrupted else bodies
                if kind == _NLMSG_ERROR:
                    raise _refusal(message, body) or KernelRefusal(errno.EIO, message.what)
                bodies.append(body)

    def get(self, message: Message) -> bytes | None:
        """One object, or None where the kernel knows none."""
        with self._lock:
            self._sequence += 1
            self._socket.send(_pack(message, self._sequence, NLM_F_REQUEST))
            while True:
                for kind, _flags, sequence, body in _messages(self._socket.recv(_RECEIVE)):
                    if sequence != self._sequence:
                        continue
                    if kind != _NLMSG_ERROR:
                        return body
                    refusal = _refusal(message, body)
                    if refusal is not None and refusal.errno not in (errno.ENODEV, errno.ENOENT):
                        raise refusal
                    return None


def _pack(message: Message, sequence: int, flags: int) -> bytes:
    padding = b"\0" * (-len(message.body) % 4)
    length = 16 + len(message.body)
    return _HEADER.pack(length, message.kind, message.flags | flags, sequence, 0) + message.body + padding


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _pid = _HEADER.unpack_from(data, offset)
        if length < 16:
            return
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _refusal(message: Message, body: bytes) -> KernelRefusal | None:
    code = -struct.unpack_from("=i", body)[0]
    if code == 0 or code in message.allow:
        return None
    return KernelRefusal(code, f"{message.what}: {os.strerror(code)}")

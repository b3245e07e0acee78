"""The kernel's WireGuard by generic netlink: messages as <linux/wireguard.h> has them. Pure: bytes in, bytes out."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

from .wireguard import DeviceChange, Endpoint, FoundDevice, FoundPeer, PeerChange

FAMILY = "wireguard"
CONTROL_FAMILY, CONTROL_GET_FAMILY = 0x10, 3
COMMAND_GET, COMMAND_SET = 0, 1
PEERS_PER_MESSAGE = 100
"""An attribute is at most 64 KiB, and all peers of a message are in one."""

_CONTROL_ID, _CONTROL_NAME = 1, 2
_DEVICE_NAME, _DEVICE_PRIVATE, _DEVICE_PORT, _DEVICE_PEERS = 2, 3, 6, 8
_PEER_PUBLIC, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEPALIVE = 1, 3, 4, 5
_PEER_HANDSHAKE, _PEER_RECEIVED, _PEER_ALLOWED = 6, 7, 9
_ALLOWED_FAMILY, _ALLOWED_ADDRESS, _ALLOWED_LENGTH = 1, 2, 3
_REMOVE_ME, _REPLACE_ALLOWED = 1, 2
_INET, _INET6 = 2, 10
_NESTED = 0x8000
_HEADER = struct.Struct("=BBxx")
_ATTRIBUTE = struct.Struct("=HH")
_NEW = FoundPeer(endpoint=None, allowed=frozenset(), keepalive_s=0)


def family_request(name: str) -> bytes:
    """The body that asks for a family's number."""
    return _HEADER.pack(CONTROL_GET_FAMILY, 1) + _attr(_CONTROL_NAME, name.encode() + b"\0")


def family_id(body: bytes) -> int:
    """Of the answer."""
    return int.from_bytes(dict(_attributes(body, _HEADER.size)).get(_CONTROL_ID, b""), "little")


def read_request(name: str) -> bytes:
    """The body of a dump of one device."""
    return _HEADER.pack(COMMAND_GET, 1) + _name(name)


def set_requests(name: str, change: DeviceChange) -> list[bytes]:
    """The bodies to be sent one after another."""
    head = b""
    if change.private_key is not None:
        head += _attr(_DEVICE_PRIVATE, change.private_key)
    if change.port is not None:
        head += _attr(_DEVICE_PORT, struct.pack("=H", change.port))
    bodies = [_HEADER.pack(COMMAND_SET, 1) + _name(name) + head] if head else []
    for start in range(0, len(change.peers), PEERS_PER_MESSAGE):
        peers = b"".join(_nested(0, _peer(peer)) for peer in change.peers[start : start + PEERS_PER_MESSAGE])
        bodies.append(_HEADER.pack(COMMAND_SET, 1) + _name(name) + _nested(_DEVICE_PEERS, peers))
    return bodies


def _peer(peer: PeerChange) -> bytes:
    flags = _REMOVE_ME * peer.is_removed | _REPLACE_ALLOWED * peer.is_replaced
    body = _attr(_PEER_PUBLIC, peer.public_key)
    if flags:
        body += _attr(_PEER_FLAGS, struct.pack("=I", flags))
    if peer.endpoint is not None:
        body += _attr(_PEER_ENDPOINT, _socket_address(peer.endpoint))
    if peer.keepalive_s is not None:
        body += _attr(_PEER_KEEPALIVE, struct.pack("=H", peer.keepalive_s))
    if peer.allowed:
        body += _nested(_PEER_ALLOWED, b"".join(_nested(0, _allowed(address)) for address in peer.allowed))
    return body


def _allowed(address: str) -> bytes:
    packed = ip_address(address).packed
    family = _INET if len(packed) == 4 else _INET6
    return (
        _attr(_ALLOWED_FAMILY, struct.pack("=H", family))
        + _attr(_ALLOWED_ADDRESS, packed)
        + _attr(_ALLOWED_LENGTH, bytes([8 * len(packed)]))
    )


def _socket_address(endpoint: Endpoint) -> bytes:
    packed, port = ip_address(endpoint[0]).packed, struct.pack(">H", endpoint[1])
    if len(packed) == 4:
        return struct.pack("=H", _INET) + port + packed + bytes(8)
    return struct.pack("=H", _INET6) + port + bytes(4) + packed + bytes(4)


def device(bodies: Iterable[bytes]) -> FoundDevice:
    """Of a dump: a peer with many addresses is told in more than one message."""
    private_key, port = b"", 0
    peers: dict[bytes, FoundPeer] = {}
    for body in bodies:
        for kind, value in _attributes(body, _HEADER.size):
            if kind == _DEVICE_PRIVATE:
                private_key = value
            elif kind == _DEVICE_PORT:
                port = int.from_bytes(value, "little")
            elif kind == _DEVICE_PEERS:
                for _, entry in _attributes(value):
                    _add_peer(peers, entry)
    return FoundDevice(private_key, port, peers)


def _add_peer(peers: dict[bytes, FoundPeer], entry: bytes) -> None:
    found = dict(_attributes(entry))
    key = found.get(_PEER_PUBLIC, b"")
    peer = peers.get(key, _NEW)
    allowed = {_found_address(value) for _, value in _attributes(found.get(_PEER_ALLOWED, b""))}
    peer = replace(peer, allowed=peer.allowed | allowed)
    if _PEER_ENDPOINT in found:
        peer = replace(peer, endpoint=_found_endpoint(found[_PEER_ENDPOINT]))
    if _PEER_KEEPALIVE in found:
        peer = replace(peer, keepalive_s=int.from_bytes(found[_PEER_KEEPALIVE], "little"))
    if _PEER_HANDSHAKE in found:
        peer = replace(peer, handshake_at=float(int.from_bytes(found[_PEER_HANDSHAKE][:8], "little")))
    if _PEER_RECEIVED in found:
        peer = replace(peer, received=int.from_bytes(found[_PEER_RECEIVED], "little"))
    peers[key] = peer


def _found_endpoint(value: bytes) -> Endpoint | None:
    family = int.from_bytes(value[:2], "little")
    if family == _INET and len(value) >= 8:
        return str(ip_address(value[4:8])), int.from_bytes(value[2:4], "big")
    if family == _INET6 and len(value) >= 24:
        return str(ip_address(value[8:24])), int.from_bytes(value[2:4], "big")
    return None


def _found_address(entry: bytes) -> str:
    found = dict(_attributes(entry))
    packed, length = found.get(_ALLOWED_ADDRESS, b""), int.from_bytes(found.get(_ALLOWED_LENGTH, b""), "little")
    if len(packed) not in (4, 16):
        return ""
    if length == 8 * len(packed):
        return str(ip_address(packed))
    return str(ip_network((packed, min(length, 8 * len(packed))), strict=False))


def _name(name: str) -> bytes:
    return _attr(_DEVICE_NAME, name.encode() + b"\0")


def _attr(kind: int, payload: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def _nested(kind: int, payload: bytes) -> bytes:
    return _attr(kind | _NESTED, payload)


def _attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """All of them, those of one kind too. Stops at the first malformed one."""
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3

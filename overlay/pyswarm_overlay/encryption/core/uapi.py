"""WireGuard's cross-platform userspace configuration protocol, as text: what `wireguard-go` is told and answers. Pure.

https://www.wireguard.com/xplatform/ describes it. The answer comes from a program of ours on a socket that only root
can open, and is read as outside input all the same: bounded, and refused when it is not what the protocol says.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from pyswarm_common.errors import Unavailable

from .wireguard import DeviceChange, Endpoint, FoundDevice, FoundPeer, PeerChange

GET = b"get=1\n\n"
ANSWER_LIMIT = 16 << 20
_NEW = FoundPeer(endpoint=None, allowed=frozenset(), keepalive_s=0)


class Malformed(Unavailable):
    """Not the protocol. Says which line, and never what a key was."""


class Refused(OSError):
    """The device refused what it was told."""


def request(change: DeviceChange) -> bytes:
    """A `set` operation."""
    lines = ["set=1"]
    if change.private_key is not None:
        lines.append(f"private_key={change.private_key.hex()}")
    if change.port is not None:
        lines.append(f"listen_port={change.port}")
    for peer in change.peers:
        lines += _peer_lines(peer)
    return ("\n".join(lines) + "\n\n").encode()


def _peer_lines(peer: PeerChange) -> list[str]:
    lines = [f"public_key={peer.public_key.hex()}"]
    if peer.is_removed:
        return [*lines, "remove=true"]
    if peer.endpoint is not None:
        lines.append(f"endpoint={_endpoint_text(peer.endpoint)}")
    if peer.keepalive_s is not None:
        lines.append(f"persistent_keepalive_interval={peer.keepalive_s}")
    if peer.is_replaced:
        lines.append("replace_allowed_ips=true")
    return [*lines, *(f"allowed_ip={address}/{ip_address(address).max_prefixlen}" for address in peer.allowed)]


def _endpoint_text(endpoint: Endpoint) -> str:
    address, port = endpoint
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def is_whole(answer: bytes) -> bool:
    """Whether it has all of its lines: an empty one ends it."""
    return answer.endswith(b"\n\n")


def check(answer: bytes) -> None:
    """Of a `set` operation. Raises Refused."""
    _pairs(answer)


def device(answer: bytes) -> FoundDevice:
    """Of a `get` operation. Raises Refused or Malformed."""
    private_key, port = b"", 0
    peers: dict[bytes, FoundPeer] = {}
    current = b""
    for key, value in _pairs(answer):
        match key:
            case "private_key":
                private_key = _key(value)
            case "listen_port":
                port = _number(value)
            case "public_key":
                current = _key(value)
                peers[current] = _NEW
            case _ if current:
                peers[current] = _with(peers[current], key, value)
    return FoundDevice(private_key, port, peers)


def _with(peer: FoundPeer, key: str, value: str) -> FoundPeer:
    match key:
        case "endpoint":
            return replace(peer, endpoint=_endpoint(value))
        case "allowed_ip":
            return replace(peer, allowed=peer.allowed | {_allowed(value)})
        case "persistent_keepalive_interval":
            return replace(peer, keepalive_s=_number(value))
        case "last_handshake_time_sec":
            return replace(peer, handshake_at=float(_number(value)))
        case "rx_bytes":
            return replace(peer, received=_number(value))
    return peer  # nanoseconds, bytes sent, and what later versions add


def _pairs(answer: bytes) -> list[tuple[str, str]]:
    if len(answer) > ANSWER_LIMIT or not is_whole(answer):
        raise Malformed("the answer of the tunnel's process is cut off or too long")
    pairs = []
    for number, line in enumerate(answer.decode("ascii", "replace").split("\n")):
        key, has_value, value = line.partition("=")
        if line and not has_value:
            raise Malformed(f"line {number} of the answer of the tunnel's process is no key=value")
        if key == "errno" and _signed(value):
            raise Refused(abs(_signed(value)), "the tunnel's process refused the configuration")
        if line and key != "errno":
            pairs.append((key, value))
    return pairs


def _signed(value: str) -> int:
    return _number(value.removeprefix("-"))


def _number(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise Malformed("a number in the answer of the tunnel's process is none")
    return int(value)


def _key(value: str) -> bytes:
    try:
        key = bytes.fromhex(value)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise Malformed("a key in the answer of the tunnel's process is none")
    return key


def _endpoint(value: str) -> Endpoint:
    host, _, port = value.rpartition(":")
    try:
        return str(ip_address(host.strip("[]").partition("%")[0])), _number(port)
    except ValueError:
        raise Malformed("an endpoint in the answer of the tunnel's process is none") from None


def _allowed(value: str) -> str:
    """A single address bare; what is wider as it is, which no plan wants and so removes."""
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise Malformed("an allowed address in the answer of the tunnel's process is none") from None
    return str(network.network_address) if network.num_addresses == 1 else str(network)

"""Names and hardware addresses, derived and never stored.

An interface name has 15 characters at most, so ids are shortened by a hash; whoever meets a name that begins with our
prefix and belongs to nothing wanted may remove it. A MAC address follows from the IP address, so every host can tell a
peer's without being told.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_interface

from pyswarm_common.addresses import is_ipv6
from pyswarm_common.errors import InvalidArgument

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_PREFIX = re.compile(r"[a-z][a-z0-9]{0,3}")

VXLAN = "vxlan0"


def short(*parts: str) -> str:
    """Eight hexadecimal digits that stand for the parts."""
    return hashlib.blake2s("\0".join(parts).encode(), digest_size=4).hexdigest()


def check_id(kind: str, value: str) -> str:
    """Ids become file names, so only plain ones are let in."""
    if not _ID.fullmatch(value) or value in (".", ".."):
        raise InvalidArgument(f"invalid {kind} id {value!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return value


def check_prefix(prefix: str) -> str:
    if not _PREFIX.fullmatch(prefix):
        raise InvalidArgument(f"invalid interface prefix {prefix!r}: use one to four lower-case letters and digits")
    return prefix


def gateway_port_prefix(prefix: str) -> str:
    return f"{prefix}-g"


def gateway_port(prefix: str, sandbox_id: str) -> str:
    return gateway_port_prefix(prefix) + short(sandbox_id)


def link_group(prefix: str) -> int:
    """The number that marks all sandboxes' ways out, so that they can be removed at once."""
    return int.from_bytes(hashlib.blake2s(prefix.encode(), digest_size=4).digest(), "big") & 0x3FFFFFFF | 0x40000000


def ingress_device(prefix: str) -> str:
    return f"{prefix}-ing"


def network_port(sandbox_id: str, network_id: str) -> str:
    """By which a network's driver knows a sandbox's interface."""
    return f"p{short(sandbox_id, network_id)}"


def host_table(prefix: str) -> str:
    return f"{prefix}_overlay"


def sandbox_table(prefix: str) -> str:
    return f"{prefix}_vip"


def timeout_table(vip_table: str) -> str:
    """Of the times that a sandbox's idle connections are remembered."""
    return f"{vip_table}_times"


def policy_table(prefix: str) -> str:
    return f"{prefix}_policy"


def mac_of(addresses: Sequence[str]) -> str:
    """02:42 and the first IPv4 address, as Docker has it; where there is none, a hash of the first address."""
    return _mac_of(next((address for address in addresses if not is_ipv6(address)), addresses[0]))


@lru_cache(maxsize=1 << 16)
def _mac_of(address: str) -> str:
    packed = ip_interface(address).ip.packed
    if len(packed) == 4:
        return (b"\x02\x42" + packed).hex(":")
    first, *rest = hashlib.blake2s(packed, digest_size=6).digest()
    return bytes([first & 0xFC | 2, *rest]).hex(":")  # one station's, and administered here

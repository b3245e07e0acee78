"""Whether what a node says of itself may be written down. Pure.

Other nodes put its addresses and keys into their kernels, and the planner reckons with the subnets that it routes; so
what none of them could read is refused here, before it is anybody's. Whether it is true nobody can tell: a node that
claims another's address or key is dealt with where that matters (`tunnel_peers`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from pyswarm_common.addresses import is_host_address
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import NodeDescription, TunnelKey

_KEY_BYTES = 32
_SHOWN = 64


def check_description(description: NodeDescription, address: str) -> None:
    """Raises InvalidArgument. `address`: the node's own, by its hello."""
    for text in (address, description.data_path_address):
        if text and not is_host_address(text):
            raise InvalidArgument(f"the node says that its address is {text[:_SHOWN]!r}: that is no address of a host")
    for text in description.routed_subnets:
        if not _is_subnet(text):
            raise InvalidArgument(f"the node says that it routes {text[:_SHOWN]!r}: that is no subnet")
    _check_keys(description.tunnel_keys)


def _check_keys(keys: Iterable[TunnelKey]) -> None:
    for key in keys:
        if len(key.public_key) != _KEY_BYTES or not 0 < key.port <= 0xFFFF:
            raise InvalidArgument(f"the node tells a tunnel key that is none: {_KEY_BYTES} bytes and a UDP port")


def _is_subnet(text: str) -> bool:
    """A default route is none: it would be in the way of every network."""
    try:
        return ipaddress.ip_network(text).prefixlen > 0 and "%" not in text
    except ValueError:
        return False

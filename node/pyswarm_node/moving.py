"""This machine's address may change: which one the node has now, and hearing that something changed.

`followed` decides, and is pure. An interface that was named is followed. Otherwise an address is kept as long as this
machine has it; then the node takes the one towards the managers, or the only one there is. An address that was given as
one comes back with it; and where the data path has an address of its own, the advertised one is kept in any case, since
it may be another machine's that passes traffic on. What follows from a new address is the membership's business.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

from msgspec.structs import replace

from pyswarm_common.errors import PyswarmError

from .addresses import (
    DEFAULT_MANAGER_PORT,
    Interface,
    choose_advertised,
    everywhere,
    is_ip,
    listen_address,
    split_host_port,
)
from .entrance import address_towards
from .kernel_news import ADDRESSES, kernel_news
from .paths import NodeRecord, join_host_port

_log = logging.getLogger(__name__)

_SETTLE_S = 1.0
_LOOK_AGAIN_S = 60.0


def followed(record: NodeRecord, interfaces: tuple[Interface, ...], towards: str | None) -> NodeRecord:
    """The record with the addresses that hold now. `towards`: the machine's own address on the way to a manager.

    Raises InvalidArgument where what was asked for cannot be told any more (the interface is gone, or there are several
    addresses to choose from)."""
    has_own_path = bool(record.data_path)
    address, port = _present(
        record.advertise, record.address, record.manager_port, interfaces, towards, must_be_here=not has_own_path
    )
    data_path = address
    if has_own_path:
        data_path, _ = _present(record.data_path, record.data_path_address, 0, interfaces, towards, must_be_here=True)
    listens_at = record.listen_address
    host = split_host_port(record.listen, 0)[0]
    if not host and (":" in address) != (":" in record.address):
        listens_at = join_host_port(everywhere(address), split_host_port(listens_at, DEFAULT_MANAGER_PORT)[1])
    elif host and not is_ip(host):
        listens_at = listen_address(record.listen, interfaces, address)
    return replace(record, address=address, manager_port=port, data_path_address=data_path, listen_address=listens_at)


def _present(
    asked: str, address: str, port: int, interfaces: tuple[Interface, ...], towards: str | None, *, must_be_here: bool
) -> tuple[str, int]:
    host, asked_port = split_host_port(asked, port or DEFAULT_MANAGER_PORT)
    if is_ip(host):
        host = choose_advertised(host, interfaces)[0]
        if not must_be_here or any(host in interface.addresses for interface in interfaces):
            return host, asked_port
        host = ""
    for interface in interfaces:
        if host in ("", interface.name) and address in interface.addresses:
            return address, asked_port
    if not host and towards is not None:
        return towards, asked_port
    return choose_advertised(host, interfaces, like=address)[0], asked_port


def way_out(managers: Sequence[str]) -> str | None:
    """This machine's own address on the way to the first manager that it has a route to; None if there is no way."""
    for manager in managers:
        with contextlib.suppress(PyswarmError, OSError):
            return address_towards(manager)
    return None


def address_changes() -> AsyncIterator[None]:
    """Yields after the machine's addresses have changed and come to rest, and now and then in any case."""
    return kernel_news(ADDRESSES, _SETTLE_S, _LOOK_AGAIN_S)

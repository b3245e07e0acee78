"""Translated connections of this host: end those to given targets, and have their clients notice.

A TCP client that sends nothing would not notice that its connection is gone. So it is sent what looks like the answer
to a new connection (SYN and ACK). RFC 5961 has its kernel say where it stands, and *that* packet, which belongs to no
connection any more, is answered with a reset it believes. Nothing needs to be known of it but its addresses, and
connection tracking on the way (the node that the client came through) lets such a packet pass in every state, where
it drops acknowledgements outside the window.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from pyswarm_overlay.core.closing_packets import segment
from pyswarm_overlay.core.published import TargetKey

from .conntrack_wire import Entry, question
from .netlink import Netlink

log = logging.getLogger(__name__)

_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": 132}
_SO_MARK = 36
_MAX_NUDGES = 20_000
_SYN_AND_ACK = 0x12
_WINDOW = 1024


@dataclass(frozen=True, slots=True)
class Flow:
    """A TCP connection that was ended: the client's end, and where it thinks that it is connected to."""

    client: tuple[str, int]
    server: tuple[str, int]
    mark: int


def end(netlink: Netlink, targets: Collection[TargetKey]) -> list[Flow]:
    """Delete every connection to these targets that is not over; returns the TCP ones.

    A finished one is left to the kernel: nobody waits for it, and its client may have begun another at the same port.
    """
    doomed: dict[bytes, Entry] = {}
    for target in sorted(targets):
        family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
        protocol = _NUMBERS[target.protocol]
        for body in netlink.dump(question(family, protocol=protocol, source=target.address, port=target.port)):
            entry = Entry(body)
            if _leads_to(entry, target) and not entry.is_over:
                doomed[body] = entry
    netlink.transact([entry.deletion() for entry in doomed.values()])
    return [flow for flow in map(_tcp_flow, doomed.values()) if flow is not None]


def _leads_to(entry: Entry, target: TargetKey) -> bool:
    """What is not translated is none of ours."""
    there, protocol = entry.reply.source, entry.reply.protocol
    is_there = (*there, protocol) == (target.address, target.port, _NUMBERS[target.protocol])
    return is_there and entry.is_translated


def _tcp_flow(entry: Entry) -> Flow | None:
    client, server = entry.original.source, entry.original.destination
    if entry.original.protocol != socket.IPPROTO_TCP or not client[0] or not server[0]:
        return None
    return Flow(client, server, entry.mark)


def nudge(flows: Sequence[Flow], mark: int) -> int:
    """Have the clients of connections that were ended ask about them; returns how many were asked.

    `mark`: of packets that connection tracking is to pass by; flows that came through a node have such a one.
    """
    if len(flows) > _MAX_NUDGES:
        log.warning("%d clients are not told that their connections are gone: they learn with their next packet",
                    len(flows) - _MAX_NUDGES)  # fmt: skip
    asked = 0
    for family in (socket.AF_INET, socket.AF_INET6):
        mine = [flow for flow in flows[:_MAX_NUDGES] if (":" in flow.client[0]) == (family == socket.AF_INET6)]
        if mine:
            asked += _nudge_family(family, mine, mark)
    return asked


def _nudge_family(family: socket.AddressFamily, flows: Iterable[Flow], mark: int) -> int:
    """A client that cannot be reached is passed over: nobody waits there."""
    asked = 0
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as sender:
        for flow in flows:
            try:
                sender.setsockopt(socket.SOL_SOCKET, _SO_MARK, flow.mark or mark)
                sender.sendto(probe(flow), (flow.client[0], 0))
                asked += 1
            except OSError as error:
                log.debug("client %s cannot be told that its connection is gone: %s", flow.client[0], error)
    return asked


def probe(flow: Flow) -> bytes:
    """A segment without data from the server's end, with its IP header."""
    return segment(flow.client, flow.server, _SYN_AND_ACK, _WINDOW)

"""Who is connected to a sandbox, from the kernel's list of its TCP sockets (/proc/net/tcp and tcp6). Pure.

A connection counts while data may still come or go on it, if it was opened from outside: to a port that something in
the sandbox listens on, and not over the loopback interface.
"""

from __future__ import annotations

from collections.abc import Iterable

_LISTEN = "0A"
_OPEN = frozenset({"01", "03", "04", "08", "09", "0B"})
"""ESTABLISHED, SYN_RECV, FIN_WAIT1, CLOSE_WAIT, LAST_ACK, CLOSING: not what merely waits for its end."""
_MAPPED = "0000000000000000FFFF0000"
_LOOPBACK6 = "00000000000000000000000001000000"


def count_inbound(lines: Iterable[str]) -> int:
    """How many connections others have to the sandbox. Lines that are no sockets are passed over."""
    listening: set[str] = set()
    ports: list[str] = []
    for line in lines:
        fields = line.split(None, 4)
        if len(fields) < 4 or not fields[0].endswith(":"):
            continue
        address, _, port = fields[1].partition(":")
        if fields[3] == _LISTEN:
            listening.add(port)
        elif fields[3] in _OPEN and not _is_loopback(address):
            ports.append(port)
    return sum(port in listening for port in ports)


def _is_loopback(address: str) -> bool:
    """The kernel prints addresses as words of the machine's byte order, which here is the little one."""
    if address == _LOOPBACK6:
        return True
    return address.removeprefix(_MAPPED)[-2:] == "7F" and len(address.removeprefix(_MAPPED)) == 8

"""nftables tables read back, and held against what wanted rules look like when they are read back.

The wanted rules are written into a namespace that nothing else is in (`Scratch`), so the kernel itself says how they
look; no knowledge of rules is needed to compare them. The kernel counts the transactions of a namespace: as long as
that count stands still nobody has changed anything there, which costs one message to see. Blocking.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Sequence

from pyswarm_overlay.core import ruleset
from pyswarm_overlay.core.attributes import attributes
from pyswarm_overlay.core.rules import Command
from pyswarm_overlay.core.ruleset import TableKey, TableShape

from . import libc
from .netlink import NETLINK_NETFILTER, Message, Netlink, text
from .nft import Context

_NFTABLES = 10
_GETTABLE, _DELTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETSETELEM, _GETGEN = 1, 2, 4, 7, 10, 13, 16
_BATCH_BEGIN, _BATCH_END = 16, 17
_HEADER = struct.Struct("=IHHII")
_NFGEN = struct.Struct(">BBH")
_REQUEST, _ACK = 1, 4

Batch = Callable[[int], tuple[bytes, int]]


def generation(netfilter: Netlink) -> int:
    """How many transactions its namespace has seen (it wraps around)."""
    body = netfilter.get(_question("generation", _GETGEN, 0))
    found = {} if body is None else attributes(body, 4)
    return int.from_bytes(found.get(1, b""), "big")


def read(netfilter: Netlink, wanted: Iterable[TableKey] | None = None) -> dict[TableKey, TableShape]:
    """The tables of its namespace; only some of them, if told which."""
    present = ruleset.table_flags(netfilter.dump(_question("tables", _GETTABLE, 0)))
    keys = present if wanted is None else {key: present[key] for key in wanted if key in present}
    chains: list[bytes] = []
    rules: list[bytes] = []
    sets: dict[ruleset.SetKey, ruleset.SetShape] = {}
    for family, table in keys:
        # A family's chains and sets are listed with those of its other tables; rules are asked for by table.
        chains += netfilter.dump(_question("chains", _GETCHAIN, family))
        rules += netfilter.dump(_question("rules", _GETRULE, family, text(1, table)))
        sets |= ruleset.set_shapes(netfilter.dump(_question("sets", _GETSET, family, text(1, table))))
    for (family, table, name), shape in sets.items():
        if (family, table) in keys and not shape.by_packets:
            where = text(1, table) + text(2, name)
            shape.elements = ruleset.elements(netfilter.dump(_question("elements", _GETSETELEM, family, where)))
    return ruleset.shapes(keys, chains, rules, sets)


def _question(what: str, kind: int, family: int, body: bytes = b"") -> Message:
    return Message(f"list nftables {what}", _NFTABLES << 8 | kind, 0, _NFGEN.pack(family, 0, 0) + body)


class Scratch:
    """An empty namespace to write wanted rules into. Made in a thread that ends with the job, then used from any."""

    def __init__(self) -> None:
        libc.unshare_net()
        self._netfilter = Netlink(NETLINK_NETFILTER)
        self._nft = Context()
        self._lock = threading.Lock()

    def of_batches(self, batches: Sequence[Batch]) -> dict[TableKey, TableShape]:
        """How tables look that these transactions make."""
        with self._lock:
            self._netfilter.run_batch(_flush)
            for batch in batches:
                self._netfilter.run_batch(batch)
            return read(self._netfilter)

    def of_document(self, document: Sequence[Command]) -> dict[TableKey, TableShape]:
        """How tables look that this document of libnftables makes."""
        with self._lock:
            self._netfilter.run_batch(_flush)
            self._nft.run(document)
            return read(self._netfilter)

    def close(self) -> None:
        self._nft.close()
        self._netfilter.close()


def _flush(sequence: int) -> tuple[bytes, int]:
    """One transaction that removes every table."""
    begin = _message(_BATCH_BEGIN, _REQUEST, sequence, _NFGEN.pack(0, 0, _NFTABLES))
    change = _message(_NFTABLES << 8 | _DELTABLE, _REQUEST | _ACK, sequence + 1, _NFGEN.pack(0, 0, 0))
    end = _message(_BATCH_END, _REQUEST, sequence + 2, _NFGEN.pack(0, 0, _NFTABLES))
    return begin + change + end, sequence + 1


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def compare(wanted: dict[TableKey, TableShape], observed: dict[TableKey, TableShape]) -> list[str]:
    """What of the wanted tables is not as wanted."""
    problems: list[str] = []
    for key, shape in wanted.items():
        problems += ruleset.differences(shape, observed.get(key), key[1])
    return problems

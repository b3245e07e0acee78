"""The policies of this host's sandboxes: kept in the kernel as the network tables want them.

Level-triggered, and per sandbox one at a time: whoever writes reads the tables as they are at that moment, so the last
one to come leaves the newest state. Changes of the tables are written as differences; a sandbox without a policy costs
a look into a dictionary and has no table. What somebody changed is found by comparing the kernel's rules with those
that were read back after writing, and its sets with what they should hold; then the whole table is written again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from .core import nft_attributes, policy_wire
from .core.plan import WantedInterface
from .core.policy import Places, Policy, has_policy, lost, policy_of
from .core.tables import TableState
from .kernel import nft_tables
from .kernel.evictions import evict
from .kernel.netlink import KernelRefusal, Netlink
from .kernel.threads import Threads
from .sandbox import LiveSandbox

StateOf = Callable[[str], TableState | None]
"""A network's present state, by its id; called in threads."""


@dataclass(slots=True, eq=False)
class Guard:
    """One sandbox: what is wanted now, and what was written last."""

    live: LiveSandbox
    table: str
    places: Places
    state_of: StateOf
    written: Policy | None = None
    rules: bytes = b""
    """As the kernel told them after they were written; empty: not known."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def sandbox_id(self) -> str:
        return self.live.sandbox.sandbox_id

    @property
    def _netfilter(self) -> Netlink:
        return self.live.sockets.netfilter

    def _states(self) -> list[TableState]:
        found = (self.state_of(network_id) for network_id in self.live.network_ids)
        return [state for state in found if state is not None]

    def wanted(self) -> Policy | None:
        """A service that was removed tells no more whom it lets in: its last tasks keep to what held."""
        states = self._states()
        service_id = self.live.sandbox.service_id or _service_of(self.live, states)
        if not service_id:
            return None
        return policy_of(service_id, self.places, states) if _is_known(service_id, states) else self.written

    def _is_orphan(self) -> bool:
        service_id = self.live.sandbox.service_id
        return bool(service_id) and not _is_known(service_id, self._states())

    def is_concerned(self, state: TableState) -> bool:
        """Whether a change of this network may mean a change here."""
        service_id = self.live.sandbox.service_id or _service_of(self.live, [state])
        return self.written is not None or has_policy(state, service_id)

    def apply(self) -> None:
        """Blocking: write the difference to what was written last."""
        with self.lock:
            wanted = self.wanted()
            before = self.written
            if wanted == before:
                return
            if wanted is None or before is None:
                self._replace(wanted)
            else:
                try:
                    self._run(policy_wire.change(self.table, before, wanted))
                except KernelRefusal:  # somebody changed it
                    self._replace(wanted)
                self.written = wanted
            self._evict(before, wanted)

    def _evict(self, before: Policy | None, after: Policy | None) -> None:
        """Who was let in before and is not now."""
        if after is None or (before is not None and before.sources <= after.sources and before.open <= after.open):
            return
        own = {address.partition("/")[0] for place in self.live.sandbox.attachments for address in place.addresses}
        is_lost = lost(before, after)
        evict(self._netfilter, lambda peer: peer not in own and is_lost(peer))

    def repair(self) -> list[str]:
        """Blocking: compare with the kernel, write what differs, and say what it was."""
        with self.lock:
            wanted = self.wanted()
            if wanted is None:
                if self._is_orphan() or not nft_tables.has_table(self._netfilter, nft_attributes.INET, self.table):
                    self.written = None
                    return []
            elif self._is_in_kernel(wanted):
                self.written = wanted
                return []
            self._replace(wanted)
        return [f"sandbox {self.sandbox_id}: {'remove' if wanted is None else 'write'} its network policy"]

    def _is_in_kernel(self, wanted: Policy) -> bool:
        if not self.rules or self._read_rules() != self.rules:
            return False
        keys = policy_wire.keys_of(wanted)
        return all(self._read_keys(name) == keys[name] for name in policy_wire.SETS)

    def _replace(self, wanted: Policy | None) -> None:
        self.written, self.rules = None, b""
        if wanted is None:
            self._run(policy_wire.without_table(self.table))
            return
        self._run(policy_wire.whole_table(self.table, wanted))
        self.written, self.rules = wanted, self._read_rules() or b""

    def _run(self, parts: list[nft_attributes.Part]) -> None:
        if parts:
            self._netfilter.run_batch(partial(nft_attributes.batch, nft_attributes.INET, parts))

    def _read_rules(self) -> bytes | None:
        return nft_tables.read_rules(self._netfilter, nft_attributes.INET, self.table, policy_wire.CHAIN)

    def _read_keys(self, name: str) -> frozenset[bytes] | None:
        return nft_tables.read_keys(self._netfilter, nft_attributes.INET, self.table, name)


def _is_known(service_id: str, states: Iterable[TableState]) -> bool:
    return any(service_id in state.services for state in states)


def _service_of(live: LiveSandbox, states: Iterable[TableState]) -> str:
    """As the tables tell of its endpoints, where the caller did not say."""
    ids = {attachment.endpoint_id for attachment in live.sandbox.attachments}
    records = (state.endpoints.get(endpoint_id) for state in states for endpoint_id in ids)
    return next((record.service_id for record in records if record is not None and record.service_id), "")


class Policies:
    """Of all sandboxes that are up. Owned by `OverlayHost`."""

    def __init__(self, table: str, state_of: StateOf, threads: Threads) -> None:
        self._table = table
        self._state_of = state_of
        self._threads = threads
        self._guards: dict[str, Guard] = {}

    async def ensure(self, live: LiveSandbox, interfaces: Iterable[WantedInterface], *, is_new: bool) -> list[str]:
        """Once a sandbox has been built or repaired: bring its policy to what is wanted. Says what it repaired.

        `is_new`: there was nothing before, so that without a policy there is nothing to look for.
        """
        places = _places(interfaces)
        known = self._guards.setdefault(live.sandbox.sandbox_id, Guard(live, self._table, places, self._state_of))
        known.live, known.places = live, places
        if is_new and known.wanted() is None:
            return []
        if not is_new:
            return await self._threads.run(known.repair)
        await self._threads.run(known.apply)
        return []

    def changed(self, state: TableState, lives: Iterable[LiveSandbox]) -> list[Guard]:
        """Those of these sandboxes whose policy may be another now: `apply` them."""
        guards = (self._guards.get(live.sandbox.sandbox_id) for live in lives)
        return [guard for guard in guards if guard is not None and guard.is_concerned(state)]

    def batches(self, sandbox_id: str) -> list[Callable[[int], tuple[bytes, int]]]:
        """What a sandbox's policy is as transactions, to be compared with the kernel. None where it has none."""
        guard = self._guards.get(sandbox_id)
        wanted = None if guard is None else guard.wanted()
        if guard is None or wanted is None:
            return []
        return [partial(nft_attributes.batch, nft_attributes.INET, policy_wire.whole_table(guard.table, wanted))]

    def mend(self, sandbox_id: str) -> None:
        """Blocking: compare with the kernel, write what differs; never older than what a change writes meanwhile."""
        guard = self._guards.get(sandbox_id)
        if guard is not None:
            guard.repair()

    def lets_in(self, sandbox_id: str, interface: str, source: str) -> bool | None:
        """Whether connections from that address are let in at that interface; None: it has no policy."""
        guard = self._guards.get(sandbox_id)
        wanted = None if guard is None else guard.wanted()
        return None if wanted is None else interface in wanted.open or (interface, source) in wanted.sources

    def forget(self, sandbox_id: str) -> None:
        """Its namespace goes, and its rules with it."""
        self._guards.pop(sandbox_id, None)


def _places(interfaces: Iterable[WantedInterface]) -> Places:
    known = list(interfaces)
    return Places(
        by_network={item.network_id: item.name for item in known if item.network_id is not None},
        way_out=next((item.name for item in known if item.network_id is None), None),
    )

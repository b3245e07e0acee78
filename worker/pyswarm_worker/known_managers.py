"""Whom the agent dials: the managers of today, as they told; names; and at last one that was a manager once.

A node may be away while managers come and go until none of those it was told of is left. Machines that were managers
before, or at which it joined, may be managers again. They are tried only after a while without a session, and one per
round, since asking a machine that is gone takes as long as all the others together. Bounded: the newest are kept.
Then other nodes' agents are asked where managers are (`inquiries`); what they say is dialled at last, and never kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import ip_address
from itertools import islice

from pyswarm.v1 import dispatcher_pb2 as pb

from .store import Operation, SavedState, put_former_managers, put_managers

MAX_SEEDS = 32
MAX_FORMER = 16
MAX_INFORMANTS = 32
MAX_HEARSAY = 16
LAST_RESORT_S = 10.0


class KnownManagers:
    """One agent's. Needs a running loop, whose clock it uses."""

    def __init__(self, joined_at: tuple[str, ...], seeds: tuple[str, ...]) -> None:
        self.addresses = joined_at
        self._joined_at, self._own_seeds = joined_at, seeds
        self._seeds: tuple[str, ...] = ()
        self._former: tuple[str, ...] = ()
        self._informants: tuple[str, ...] = ()
        self._hearsay: tuple[str, ...] = ()
        self._is_without = asyncio.Event()
        self._is_without.set()
        self._loop = asyncio.get_running_loop()
        self._without_since: float | None = self._loop.time()
        self._turn = self._question = 0

    def load(self, saved: SavedState) -> None:
        """What an earlier daemon was told."""
        self.addresses = saved.managers or self._joined_at
        self._seeds, self._former, self._informants = saved.seeds, saved.former_managers, saved.informants

    def learn(self, told: pb.ManagerList) -> list[Operation]:
        """What is to be kept of it. A leader that has just begun may not know the seeds yet: those told once stay."""
        seeds = tuple(told.seeds[:MAX_SEEDS]) or self._seeds
        addresses = tuple(told.addresses)
        told_agents = told.agent_addresses[:MAX_INFORMANTS]
        informants = tuple(dict.fromkeys((*told_agents, *self._informants)))[:MAX_INFORMANTS]
        if not addresses or (addresses, seeds, informants) == (self.addresses, self._seeds, self._informants):
            return []
        before = dict.fromkeys((*self.addresses, *self._former))
        self._former = tuple(address for address in before if address not in addresses)[:MAX_FORMER]
        self.addresses, self._seeds, self._informants = addresses, seeds, informants
        return [put_managers(addresses, seeds, informants), put_former_managers(self._former)]

    def session_started(self) -> None:
        self._without_since = None
        self._is_without.clear()
        self._hearsay = ()

    def session_broken(self) -> None:
        if self._without_since is None:
            self._without_since = self._loop.time()
            self._is_without.set()

    async def wait_without(self) -> None:
        """Until there is no session."""
        await self._is_without.wait()

    def candidates(self) -> tuple[str, ...]:
        """Whom to dial in this round, the likeliest first."""
        return (*self.addresses, *self._own_seeds, *self._seeds, *self._last_resort())

    def _last_resort(self) -> tuple[str, ...]:
        if not self._is_last_resort:
            return ()
        self._turn += 1
        once = [a for a in dict.fromkeys((*self._former, *self._joined_at)) if a not in self.addresses]
        return tuple(group[self._turn % len(group)] for group in (self._hearsay, once) if group)

    @property
    def _is_last_resort(self) -> bool:
        return self._without_since is not None and self._loop.time() - self._without_since >= LAST_RESORT_S

    def next_informant(self) -> str | None:
        """The agent to be asked now where managers are; nobody, while there may soon be a session without that."""
        if not self._informants or not self._is_last_resort:
            return None
        turn, self._question = self._question, self._question + 1
        return self._informants[turn % len(self._informants)]

    def hear(self, addresses: Iterable[str]) -> tuple[str, ...]:
        """Where another node knows managers, which need not be true; gives what is news."""
        known = {*self.addresses, *self._hearsay}
        news = [a for a in dict.fromkeys(islice(addresses, MAX_HEARSAY)) if a not in known and is_endpoint(a)]
        self._hearsay = (*news, *self._hearsay)[:MAX_HEARSAY]
        return tuple(news)


def is_endpoint(address: str) -> bool:
    """An IP address and a port, and nothing that a dialler could take for something else."""
    host, _, port = address.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    try:
        version = ip_address(host[1:-1] if is_bracketed else host).version
    except ValueError:
        return False
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536
    return is_port and is_bracketed == (version == 6) and "%" not in host

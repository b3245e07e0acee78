"""Where the managers are: a member of Raft is its node's key, and its address may change at any time.

Each manager announces its own address, signed (`announcement`). With a leader, whoever knows an address that the
configuration does not have tells the leader, which commits it: first in the Node object, then in Raft. Without one,
each manager asks every address and every seed name it knows (names are resolved anew each time), tells what it knows
and learns what they know, so that managers which all moved at once find one another if one name leads to one of them.
What is learned takes effect at once, since without it no leader could be elected to commit it.

Level-triggered: it looks, does what is missing, and looks again. It never believes an address without its owner's
signature, and never lets a raft id be claimed by another node than the one that the store says has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import grpc
from msgspec.structs import replace

from pyswarm.v1 import raft_pb2 as pb
from pyswarm.v1 import raft_pb2_grpc
from pyswarm_common.errors import InvalidArgument, PyswarmError, Unavailable
from pyswarm_common.identity import role_name
from pyswarm_common.identity.verification import MAX_CERTIFICATE_BYTES
from pyswarm_common.model import Node, NodeRole
from pyswarm_common.resolving import resolved
from pyswarm_common.rpc import open_channel
from pyswarm_manager.announcement import Announcement, announce, verified
from pyswarm_manager.config import ManagerConfig, ManagerPaths
from pyswarm_manager.ports import IdentityProvider, RaftPort
from pyswarm_manager.speakers import Speakers
from pyswarm_manager.standing import Standing
from pyswarm_manager.store.changes import Update
from pyswarm_manager.writes import StorePort, retried

_log = logging.getLogger(__name__)

PERIOD_S = 1.0
INTRODUCTION_PERIOD_S = 60.0
STANDING_PERIOD_S = 30.0
CALL_TIMEOUT_S = 3.0
MAX_KNOWN = 64
MAX_STRANGERS = 16
"""Announcements of managers that are not members, kept since they may be about to become ones."""
MAX_SEED_NAMES = 32
MAX_TARGETS = 64
_AT_ONCE = 16


class Members(RaftPort, Protocol):
    """What is needed of `RaftNode` beyond the API's part."""

    def learn_peer(self, raft_id: int, address: str) -> None: ...
    def address_of(self, raft_id: int) -> str | None: ...
    async def wait_applied(self, index: int) -> None: ...


class Whereabouts:
    """One per manager; `run` beside Raft. Serves `Raft.Announce` by `exchange`."""

    def __init__(
        self,
        config: ManagerConfig,
        paths: ManagerPaths,
        identity: IdentityProvider,
        store: StorePort,
        raft: Members,
        speakers: Speakers,
        on_removed: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_removed`: one of the others says that this manager was removed."""
        self._on_removed = on_removed
        self._config, self._paths, self._identity = config, paths, identity
        self._store, self._raft, self._speakers = store, raft, speakers
        self._known: dict[int, Announcement] = {}
        self._seeds: dict[str, None] = dict.fromkeys(config.seeds)
        self._doubted: set[tuple[bytes, str]] = set()
        self._wake = asyncio.Event()
        self._standing = Standing.load(paths.standing)
        self._standing_due = 0.0
        self._introduced: tuple[object, ...] = ()
        self._introduction_due = 0.0

    def _recall(self) -> None:
        """What was believed before this manager stopped; its certificates may have expired meanwhile."""
        for seed in self._standing.seeds[:MAX_SEED_NAMES]:
            self._seeds.setdefault(seed)
        for blob in self._standing.announcements[:MAX_KNOWN]:
            with contextlib.suppress(InvalidArgument, ValueError):  # ValueError: DecodeError is one
                self._keep(verified(pb.RaftAnnouncement.FromString(blob), self._identity(), None))

    # ---------------------------------------------------------------- what is known

    @property
    def seeds(self) -> tuple[str, ...]:
        """Names at which managers may be found."""
        return tuple(self._seeds)

    def moved(self, config: ManagerConfig) -> None:
        """This manager is reached elsewhere now, or knows other names."""
        self._config = config
        for seed in config.seeds:
            self._seeds.setdefault(seed)
        self._wake.set()

    def exchange(self, announcements: Sequence[pb.RaftAnnouncement]) -> list[pb.RaftAnnouncement]:
        """Take what another manager tells; the answer is what is known here."""
        self._take(announcements)
        return [known.message for known in self._known.values()]

    def _take(self, announcements: Iterable[pb.RaftAnnouncement]) -> None:
        for message in list(announcements)[:MAX_KNOWN]:
            if any(known.message == message for known in self._known.values()):
                continue
            try:
                said = verified(message, self._identity(), time.time())
            except InvalidArgument as error:
                self._doubt(message, error)
                continue
            self._keep(said)

    def _doubt(self, message: pb.RaftAnnouncement, error: InvalidArgument) -> None:
        """Said once of each certificate: after the root was replaced, what a manager that is away announced by its old
        one is passed on at every exchange, and is worth one line."""
        doubt = (message.certificate[:MAX_CERTIFICATE_BYTES], str(error))
        if doubt in self._doubted:
            return
        if len(self._doubted) >= MAX_KNOWN:
            self._doubted.clear()
        self._doubted.add(doubt)
        _log.warning("an announcement is not believed: %s", error)

    def _keep(self, said: Announcement) -> None:
        """Unless it is old, or the raft id is not that node's by what is known here."""
        known = self._known.get(said.raft_id)
        is_old = known is not None and known.sequence >= said.sequence
        if is_old or self._speakers.node_of(said.raft_id) != said.node_id:
            return
        self._known[said.raft_id] = said
        self._forget_strangers()
        for seed in said.seeds:
            if len(self._seeds) < MAX_SEED_NAMES:
                self._seeds.setdefault(seed)
        self._learn(said.raft_id, said.address)
        self._standing_due = 0.0
        self._wake.set()

    def _forget_strangers(self) -> None:
        strangers = [raft_id for raft_id in self._known if raft_id not in self._raft.members]
        for raft_id in strangers[:-MAX_STRANGERS]:
            del self._known[raft_id]

    def _learn(self, raft_id: int, address: str) -> None:
        if raft_id == self._raft.raft_id or self._raft.address_of(raft_id) == address:
            return
        _log.info("manager %x is at %s now", raft_id, address)
        self._raft.learn_peer(raft_id, address)

    def _own(self) -> Announcement | None:
        """This manager's announcement, made anew when what it says or its certificate has changed."""
        own, identity = self._raft.raft_id, self._identity()
        if self._speakers.node_of(own) != identity.node_id:
            return None  # not let in yet
        known, config = self._known.get(own), self._config
        said = (known.address, known.seeds, known.message.certificate) if known is not None else ()
        if known is None or said != (config.advertise_address, config.seeds, identity.cert_pem):
            sequence = max(int(time.time() * 1000), known.sequence + 1 if known is not None else 1)
            self._keep(announce(identity, own, config.advertise_address, sequence, config.seeds))
        return self._known.get(own)

    # ---------------------------------------------------------------- the loop

    async def run(self) -> None:
        """For ever."""
        with contextlib.suppress(Unavailable):  # it stops before it has begun
            await self._raft.wait_applied(self._raft.commit_index)  # the store knows which raft id is whose
        self._recall()
        while True:
            self._wake.clear()
            try:
                await self._look()
            except PyswarmError as error:
                _log.info("the managers' addresses: %s", error)
            await self._remember()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await self._wake.wait()
                    await asyncio.sleep(PERIOD_S / 20)  # news come together

    async def _look(self) -> None:
        if self._own() is None:
            return
        if self._raft.is_leader:
            await self._commit()
        elif (leader := self._raft.leader_id) is None:
            await self._tell(await self._everywhere())
        elif self._pending():
            await self._tell(filter(None, (self._raft.address_of(leader),)))
        await self._introduce()

    async def _introduce(self) -> None:
        """Now and then, and when members come: each knows where every other is, and its seeds, before it needs them."""
        own = self._known[self._raft.raft_id]
        state = (frozenset(self._raft.members), own.sequence)
        now = time.monotonic()
        if state == self._introduced and now < self._introduction_due:
            return
        self._introduced, self._introduction_due = state, now + INTRODUCTION_PERIOD_S
        others = [i for i in self._raft.members if i != own.raft_id]
        await self._tell(filter(None, map(self._raft.address_of, others)))

    def _pending(self) -> list[Announcement]:
        """What the configuration or the Node object does not say yet."""
        members, nodes = self._raft.members, self._store.view.nodes
        pending = []
        for said in self._known.values():
            member, node = members.get(said.raft_id), nodes.get(said.node_id)
            status = node.manager_status if node is not None else None
            if member is None or status is None or status.raft_id != said.raft_id:
                continue
            if not said.address == member.address == status.address:
                pending.append(said)
        return pending

    async def _commit(self) -> None:
        """On the leader: the Node object first, then Raft, as in joining."""
        for said in self._pending():
            _log.info("manager %x has moved to %s", said.raft_id, said.address)
            await retried(partial(self._write, said))
            member = self._raft.members.get(said.raft_id)
            if member is not None and member.address != said.address:
                await self._raft.update_address(said.raft_id, said.address)

    async def _write(self, said: Announcement) -> None:
        node = self._store.view.nodes.get(said.node_id)
        if node is None or node.manager_status is None or node.manager_status.address == said.address:
            return
        await self._store.propose([Update(_at(node, said.address))])

    # ---------------------------------------------------------------- the others

    async def _everywhere(self) -> list[str]:
        """Every address at which a manager may be."""
        members = [self._raft.address_of(i) or "" for i in self._raft.members if i != self._raft.raft_id]
        seeds = await asyncio.gather(*(resolved(seed) for seed in (*self._seeds, *self._config.join_addresses)))
        addresses = dict.fromkeys((*members, *(address for found in seeds for address in found)))
        return [address for address in addresses if address and address != self._config.advertise_address][:MAX_TARGETS]

    async def _tell(self, addresses: Iterable[str]) -> None:
        """Tell what is known, and learn what they know. Who does not answer is asked again some other time."""
        room = asyncio.Semaphore(_AT_ONCE)
        request = pb.RaftAnnounceRequest(
            announcements=[known.message for known in self._known.values()], sender=self._raft.raft_id
        )

        async def one(address: str) -> None:
            async with room:
                self._take(await self._ask(address, request))

        await asyncio.gather(*(one(address) for address in addresses))

    async def _ask(self, address: str, request: pb.RaftAnnounceRequest) -> Sequence[pb.RaftAnnouncement]:
        channel = open_channel(address, self._identity(), role_name(NodeRole.MANAGER))
        try:
            answer = await raft_pb2_grpc.RaftStub(channel).Announce(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            _log.debug("nobody to tell at %s: %s", address, error.details())
            return ()
        finally:
            await channel.close(None)
        if answer.is_sender_removed:
            self._on_removed()
        return answer.announcements

    # ---------------------------------------------------------------- the memory on disk

    async def _remember(self) -> None:
        now = time.monotonic()
        members = _addresses(self._raft)
        if now < self._standing_due and members == self._standing.members:
            return
        self._standing_due = now + STANDING_PERIOD_S
        standing = replace(
            self._standing,
            raft_id=self._raft.raft_id,
            index=self._raft.applied_index,
            members=members,
            seeds=self.seeds,
            announcements=tuple(known.message.SerializeToString() for known in self._known.values()),
        )
        if standing != self._standing:
            self._standing = standing
            await asyncio.to_thread(standing.save, self._paths.standing)


def _addresses(raft: Members) -> dict[int, str]:
    return {raft_id: raft.address_of(raft_id) or member.address for raft_id, member in raft.members.items()}


def _at(node: Node, address: str) -> Node:
    assert node.manager_status is not None
    return replace(node, manager_status=replace(node.manager_status, address=address))

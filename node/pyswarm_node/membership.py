"""This machine's part in a cluster: becoming a member (init, join), staying one (restart, roles), ceasing to be one.

Whatever fails half-way is undone in the reverse order, so that nothing half-made is left. `node.json` is written last
and removed first: it exists exactly while the machine is a member, and what else a crash left behind without it is
swept away at the next start. One change at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
import msgspec

from pyswarm.v1 import node_pb2
from pyswarm_common.errors import FailedPrecondition, InvalidArgument, PyswarmError, Unavailable
from pyswarm_common.identity import JoinToken, NodeIdentity
from pyswarm_common.identity.join_client import join_address
from pyswarm_common.identity.locks import LOCKED, Locked, LockKey
from pyswarm_common.model import Availability, NodeRole
from pyswarm_runtime import Runtime
from pyswarm_worker.tasks import task_id_of

from . import certificates
from .addresses import choose_advertised, is_ip, listen_address, read_interfaces, split_host_port
from .describe import describe
from .entrance import address_towards, get_certificate, grpc_address
from .forward import no_manager
from .founding import cluster_root, cluster_spec, found, new_raft_id
from .identity import CurrentIdentity
from .leaving import ask_why_not
from .local_manager import LocalManager
from .lock_keeper import LockKeeper
from .machine_lock import MachineLock
from .member import Member, MemberHooks, open_overlay
from .moving import address_changes, followed, way_out
from .paths import DEFAULT_DATA_PATH_PORT, NodeRecord, Options
from .roles import RoleLoop, Step, next_step, renewal_time
from .trust import TrustWishes

_log = logging.getLogger(__name__)

_SESSION_TIMEOUT_S = 20.0
_MAX_REMOTES = 16
ALREADY_MEMBER = 'This node is already part of a swarm. Use "pyswarm leave" to leave this swarm and join another one.'
NOT_A_MEMBER = "This node is not part of a swarm"


@dataclass(frozen=True, slots=True, repr=False)
class NewManager:
    """A manager whose state is on disk already."""

    record: NodeRecord
    identity: NodeIdentity
    raft_id: int


def _advertising(record: NodeRecord, advertise: str) -> NodeRecord:
    return msgspec.structs.replace(record, advertise=advertise)


class Membership:
    """What the daemon is in its cluster."""

    def __init__(self, options: Options, runtime: Runtime, on_failed: Callable[[BaseException], None]) -> None:
        self._options = options
        self._runtime = runtime
        self._on_failed = on_failed
        self.lock = MachineLock(options.certificates)
        self.manager = LocalManager(options, self.lock, self._others)
        self.record: NodeRecord | None = None
        self.identity: CurrentIdentity | None = None
        self.member: Member | None = None
        self._roles = RoleLoop(self._next_step, self._perform)
        self._trust = TrustWishes()
        self._role_task: asyncio.Task[None] | None = None
        self._restart: asyncio.Task[None] | None = None
        self._address_task: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._renewal_fraction = random.random()

    # ---------------------------------------------------------------- start and end of the daemon

    async def restore(self) -> None:
        """Take the membership up again, if there is one."""
        self._address_task = asyncio.create_task(self._follow_addresses())
        record = NodeRecord.load(self._options)
        if record is None:
            await self._sweep()
            return
        self.manager.put_back()
        identity = CurrentIdentity.load(self._options, record, self.lock)
        record = await self._followed(record)
        await self.manager.readdress(record)
        if self.lock.is_locked:
            _log.warning("%s", LOCKED)
        elif identity().role is NodeRole.MANAGER and self.manager.has_state:
            self.manager.start()
        await self._enter(record, identity)

    async def _sweep(self) -> None:
        """What a crash in the middle of joining or leaving left: containers of tasks, networks, files."""
        for state in await self._runtime.list():
            if task_id_of(state):
                _log.info("container %s is of a swarm that this node has left: removing it", state.config.name)
                await self._runtime.remove(state.id, force=True)
        if self._options.network.exists():
            await (await open_overlay(self._options, "127.0.0.1", DEFAULT_DATA_PATH_PORT)).destroy()
        self._options.forget_membership()

    async def close(self) -> None:
        """Containers run on."""
        if self._address_task is not None:
            self._address_task.cancel()
            await asyncio.gather(self._address_task, return_exceptions=True)
        await self._end_roles()
        if self.member is not None:
            await self.member.close()
            self.member = None
        await self.manager.stop()

    # ---------------------------------------------------------------- what is known

    @property
    def node_id(self) -> str:
        return self.record.node_id if self.record is not None else ""

    def managers(self) -> Sequence[str]:
        """Whom to dial, the local one first."""
        known = self.member.agent.managers if self.member is not None else ()
        local = self._local_manager()
        return tuple(dict.fromkeys((*((local,) if local else ()), *known)))

    def channel(self) -> grpc.aio.Channel:
        """To the manager on this machine. Raises FailedPrecondition when there is none, Locked while it waits for the
        unlock key, Unavailable while it starts."""
        if self.record is not None and self.lock.is_locked:
            raise Locked
        if not self.manager.is_wanted:
            raise no_manager(self.record is not None)
        return self.manager.channel()

    def images_changed(self) -> None:
        if self.member is not None:
            self.member.agent.images_changed()

    def _local_manager(self) -> str | None:
        return self.record.manager_address if self.record is not None and self.manager.is_running else None

    # ---------------------------------------------------------------- init

    async def init(self, request: node_pb2.InitRequest) -> node_pb2.InitResponse:
        """Make a new cluster with this machine as its first manager."""
        async with self._change():
            self.check_not_member()
            spec = cluster_spec(request)
            record, availability = await self._plan(request), Availability(request.availability)
            founding = found(
                spec,
                address=record.address,
                manager_address=record.manager_address,
                description=describe(self._runtime.preflight, record.data_path_address, ""),
                availability=availability,
                now=time.time(),
                root=cluster_root(request, time.time()),
            )
            cluster, node = founding.bootstrap.cluster, founding.bootstrap.node
            record = msgspec.structs.replace(
                record,
                node_id=node.id,
                cluster_id=cluster.id,
                data_path_port=spec.data_path_port,
                managers=(record.manager_address,),
            )
            async with self._undone_on_failure() as undo:
                founding.bootstrap.save(self._options.manager.bootstrap)
                self.manager.configure(record, founding.raft_id, ())
                await self._become(undo, record, founding.identity)
            _log.info("made swarm %s: this is its manager %s at %s", cluster.id, node.id, record.manager_address)
            return node_pb2.InitResponse(
                node_id=node.id,
                worker_token=cluster.join_tokens.worker,
                manager_token=cluster.join_tokens.manager,
                manager_address=record.manager_address,
                unlock_key=LockKey(cluster.unlock_key).token() if cluster.unlock_key else "",
            )

    async def _plan(self, request: node_pb2.InitRequest | node_pb2.JoinRequest) -> NodeRecord:
        """The addresses, chosen and checked; ids come later."""
        interfaces = await read_interfaces()
        advertised = request.advertise_addr
        if not advertised and isinstance(request, node_pb2.JoinRequest):
            advertised = address_towards(request.remote_addrs[0])
        address, port = choose_advertised(advertised, interfaces)
        listens_at = listen_address(request.listen_addr, interfaces)
        if ":" not in request.advertise_addr.rpartition("]")[2]:
            port = split_host_port(listens_at, port)[1]  # advertised is where it listens, unless said otherwise
        data_path = address
        if request.data_path_addr:
            data_path, _ = choose_advertised(request.data_path_addr, interfaces, "--data-path-addr")
        return NodeRecord(
            node_id="",
            cluster_id="",
            address=address,
            data_path_address=data_path,
            listen_address=listens_at,
            manager_port=port,
            advertise=request.advertise_addr,
            data_path=request.data_path_addr,
            listen=request.listen_addr,
        )

    # ---------------------------------------------------------------- join

    async def join(self, request: node_pb2.JoinRequest) -> node_pb2.JoinResponse:
        """Become a node of the token's cluster, in the token's role."""
        async with self._change():
            self.check_not_member()
            token = JoinToken.parse(request.token)
            if not 0 < len(request.remote_addrs) <= _MAX_REMOTES:
                raise InvalidArgument(f"give the address of a manager to join at (at most {_MAX_REMOTES})")
            record = await self._plan(request)
            identity, answer = await get_certificate(request, token, record.address)
            record = msgspec.structs.replace(
                record,
                node_id=answer.node_id,
                cluster_id=answer.cluster_id,
                managers=tuple(answer.manager_addresses) or tuple(grpc_address(a) for a in request.remote_addrs),
                seeds=tuple(grpc_address(a) for a in request.remote_addrs if not is_ip(join_address(a)[0])),
            )
            async with self._undone_on_failure() as undo:
                undo.push_async_callback(self._take_back, identity, record.managers)
                if identity.role is NodeRole.MANAGER:
                    self.manager.configure(record, new_raft_id(), record.managers)
                await self._become(undo, record, identity)
            _log.info("joined swarm %s as %s %s", record.cluster_id, identity.role.name.lower(), record.node_id)
            await self._wait_session()
            return node_pb2.JoinResponse(node_id=record.node_id, role=int(identity.role))  # type: ignore[arg-type]

    async def _take_back(self, identity: NodeIdentity, managers: Sequence[str]) -> None:
        """The cluster already counts us in: tell it that we are not coming."""
        with contextlib.suppress(PyswarmError):
            await certificates.leave(identity, managers, force=True)

    async def _wait_session(self) -> None:
        assert self.member is not None
        deadline = time.monotonic() + _SESSION_TIMEOUT_S
        while not self.member.agent.has_had_session:
            if time.monotonic() > deadline:
                raise Unavailable(
                    "Timeout was reached before node joined. The attempt to join the swarm will continue in the "
                    f"background. ({self.member.agent.error})"
                )
            await asyncio.sleep(0.02)

    # ---------------------------------------------------------------- recovery

    async def restore_from(
        self, addresses: node_pb2.InitRequest, prepare: Callable[[NodeRecord], Awaitable[NewManager]]
    ) -> NodeRecord:
        """Become a cluster's only manager; `prepare` lays its state on disk, given this machine's addresses."""
        async with self._change():
            self.check_not_member()
            plan = await self._plan(addresses)
            async with self._undone_on_failure() as undo:
                new = await prepare(plan)
                self.manager.configure(new.record, new.raft_id, ())
                await self._become(undo, new.record, new.identity)
            return new.record

    async def restore_in_place(self, prepare: Callable[[NodeRecord], Awaitable[NewManager]]) -> NodeRecord:
        """The same node with another state of its cluster; what runs here goes on as far as that knows of it."""
        async with self.manager_stopped(needs_state=False) as old, contextlib.AsyncExitStack() as undo:
            assert self.identity is not None
            self.manager.set_aside()
            undo.callback(self.manager.put_back)
            new = await prepare(old)
            undo.callback(self.identity.replace, self.identity())
            self.identity.replace(new.identity)
            self.manager.configure(new.record, new.raft_id, ())
            await self.manager.start_and_wait()
            self.manager.forget_aside()
            undo.pop_all()
        self._roles.forget()
        new.record.save(self._options)
        self.record = new.record
        if self.member is not None:
            await self.member.agent.identity_changed()
        return new.record

    def check_same_cluster(self, cluster_id: str) -> None:
        """Raises FailedPrecondition for another cluster's backup."""
        if self.record is not None and self.record.cluster_id != cluster_id:
            raise FailedPrecondition(ALREADY_MEMBER)

    def check_manager(self, *, needs_state: bool = True) -> None:
        """Raises FailedPrecondition unless this is a manager (with its state) whose keys can be read."""
        if self.record is None:
            raise FailedPrecondition(NOT_A_MEMBER)
        if self.lock.is_locked:
            raise Locked
        was_one = self.identity is not None and self.identity().role is NodeRole.MANAGER
        if not (self.manager.has_state or (was_one and not needs_state)):
            raise no_manager(True)

    @contextlib.asynccontextmanager
    async def manager_stopped(self, *, needs_state: bool = True) -> AsyncIterator[NodeRecord]:
        """Nobody uses the manager's files meanwhile; it runs again afterwards, whatever happens."""
        async with self._change():
            self.check_manager(needs_state=needs_state)
            assert self.record is not None
            await self.manager.stop()
            try:
                yield self.record
            finally:
                if not self.manager.is_wanted and self.manager.has_state:
                    self.manager.start()

    async def move(self, record: NodeRecord) -> None:
        """This node has other addresses from now on. Containers run on."""
        if record != self.record:
            await self._reenter(record)

    # ---------------------------------------------------------------- becoming a member

    @contextlib.asynccontextmanager
    async def _undone_on_failure(self) -> AsyncIterator[contextlib.AsyncExitStack]:
        async with contextlib.AsyncExitStack() as undo:
            self._options.forget_membership()
            undo.callback(self._options.forget_membership)
            yield undo
            undo.pop_all()

    async def _become(self, undo: contextlib.AsyncExitStack, record: NodeRecord, identity: NodeIdentity) -> None:
        identity.save(self._options.certificates)
        if identity.role is NodeRole.MANAGER:
            undo.push_async_callback(self.manager.stop)
            await self.manager.start_and_wait()
        undo.push_async_callback(self._exit)
        await self._enter(record, CurrentIdentity(self._options.certificates, identity, self.lock))
        record.save(self._options)

    async def _enter(self, record: NodeRecord, identity: CurrentIdentity) -> None:
        hooks = MemberHooks(
            local_manager=self._local_manager,
            on_node=self._roles.on_node,
            on_data_path_port=self._on_data_path_port,
            on_failed=self._on_failed,
            on_roots=self._on_roots,
        )
        self.record, self.identity = record, identity
        try:
            self.member = await Member.start(self._options, record, identity, self._runtime, hooks)
        except BaseException:
            self.record = self.identity = None
            raise
        if not self.lock.is_locked:
            self._follow_cluster(identity)

    def _follow_cluster(self, identity: CurrentIdentity) -> None:
        keeper = LockKeeper(self.lock, identity, self.manager.channel_if_up, self._changing)

        async def follow() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._roles.run())
                group.create_task(keeper.run())

        self._role_task = asyncio.create_task(follow())

    async def _exit(self) -> None:
        """Undo `_enter`, with everything that runs on this node for the cluster."""
        await self._end_roles()
        if self.member is not None:
            await self.member.leave()
        self.member = self.record = self.identity = None
        self.lock.forget()
        self._roles.forget()

    async def _end_roles(self) -> None:
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.gather(self._restart, return_exceptions=True)
            self._restart = None
        await self._end_role_task()

    async def _end_role_task(self) -> None:
        if self._role_task is not None:
            self._role_task.cancel()
            await asyncio.gather(self._role_task, return_exceptions=True)
            self._role_task = None

    # ---------------------------------------------------------------- autolock

    async def unlock(self, token: str) -> None:
        """Go on with what waited for the unlock key. Raises WrongKey."""
        async with self._change():
            if self.record is None or self.identity is None or self.member is None:
                raise FailedPrecondition(NOT_A_MEMBER)
            if not self.lock.is_locked:
                raise FailedPrecondition("swarm is not locked")
            self.lock.open(LockKey.parse(token))
            self.identity.unlock()
            _log.info("unlocked")
            if self.identity().role is NodeRole.MANAGER and self.manager.has_state:
                self.manager.start()
            await self.member.agent.identity_changed()
            self._follow_cluster(self.identity)

    def _unlock_for_good(self) -> None:
        """Workers have no lock: they hold nothing of the managers' any more."""
        assert self.identity is not None
        if self.lock.master is not None:
            self.identity.open_for_good()
            self.lock.take_off()

    # ---------------------------------------------------------------- leave

    async def leave(self, *, force: bool) -> None:
        """Cease to be a member. What runs here for the cluster ends."""
        async with self._change():
            if self.record is None or self.identity is None or self.member is None:
                raise FailedPrecondition(NOT_A_MEMBER)
            if self.identity.certified.role is NodeRole.MANAGER and not force:
                raise FailedPrecondition(await ask_why_not(self.channel, self.node_id))
            await self._end_roles()
            await self.member.end_session()
            try:
                await certificates.leave(self.identity(), self.managers(), force=force)
            except PyswarmError as error:
                _log.warning("the swarm was not told that this node leaves: %s", error)
            self._options.record.unlink(missing_ok=True)
            await self._exit()
            await self.manager.stop()
            self._options.forget_membership()
            _log.info("left the swarm")

    # ---------------------------------------------------------------- roles and renewal

    def _next_step(self, node: object) -> Step:
        assert self.identity is not None
        not_before, not_after = self.identity().validity
        return next_step(
            self._roles.node,
            self.identity().role,
            is_manager_set_up=self.manager.is_set_up,
            renew_at=renewal_time(not_before, not_after, self._renewal_fraction),
            now=time.time(),
            has_new_roots=self._trust.has_new_roots(self.identity()),
            is_asked_to_renew=self._trust.is_asked_to_renew(self.identity(), self._roles.node),
        )

    async def _perform(self, step: Step) -> None:
        async with self._changing:
            if self.identity is None or self._next_step(self._roles.node) is not step:
                return  # decided before a change that was under way: a manager that only stood still must not be lost
            match step:
                case Step.PROMOTE:
                    await self._renew()
                    await self._start_manager()
                case Step.START_MANAGER:
                    await self._start_manager()
                case Step.DEMOTE:
                    await self.manager.remove()
                    self._unlock_for_good()
                    await self._renew()
                case Step.RENEW:
                    await self._renew()
                    self.manager.reload()
                case Step.TRUST:
                    await self._trust_other_roots()
                case Step.NOTHING:
                    pass

    async def _renew(self) -> None:
        assert self.identity is not None
        assert self.member is not None
        before, node = self.identity(), self._roles.node
        if time.time() < before.validity[1]:
            after = await certificates.renew(before, self.managers())
        else:
            after = await certificates.renew_expired(before, (*self.managers(), *self._seeds()))
        self._trust.renewed(before, after, node)
        self.identity.replace(after)
        await self.member.agent.identity_changed()

    def _on_roots(self, roots: bytes) -> None:
        self._trust.on_roots(roots)
        self._roles.wake()

    async def _trust_other_roots(self) -> None:
        assert self.identity is not None
        assert self.member is not None
        self.identity.replace(self._trust.with_new_roots(self.identity()))
        await self.member.agent.trust_changed()
        self.manager.reload()

    async def _start_manager(self) -> None:
        assert self.record is not None
        assert self.identity is not None
        if self.identity().role is not NodeRole.MANAGER:
            return  # the role was taken back meanwhile
        others = tuple(address for address in self.managers() if address != self.record.manager_address)
        await self.manager.remove()
        self.manager.configure(self.record, new_raft_id(), others)
        self.manager.start()

    # ---------------------------------------------------------------- the cluster's VXLAN port

    def _on_data_path_port(self, port: int) -> None:
        """Only known once there is a session: a joining node begins with the default port."""
        if self.record is not None and port != self.record.data_path_port and self._restart is None:
            self._restart = asyncio.create_task(self._reopen(port))

    async def _reopen(self, port: int) -> None:
        async with self._changing:
            if self.record is None or self.identity is None or self.member is None:
                return
            _log.info("the cluster's data path port is %d: opening the networks anew", port)
            self._restart = None
            await self._reenter(msgspec.structs.replace(self.record, data_path_port=port))

    async def _reenter(self, record: NodeRecord) -> None:
        """The networks and the agent begin again with other settings; containers run on."""
        assert self.identity is not None
        assert self.member is not None
        record.save(self._options)
        await self.member.close()
        self.member = None
        await self._end_role_task()
        await self._enter(record, self.identity)

    # ---------------------------------------------------------------- this machine's address

    async def _follow_addresses(self) -> None:
        """For ever: when the machine's address changes, the node's does."""
        try:
            await self._follow()
        except Exception as error:
            self._on_failed(error)

    async def _follow(self) -> None:
        async for _ in address_changes():
            async with self._changing:
                if self.record is None or self.member is None:
                    continue
                record = await self._followed(self.record)
                if record != self.record:
                    await self.manager.readdress(record)
                    await self._reenter(record)

    async def _followed(self, record: NodeRecord) -> NodeRecord:
        """The record with the addresses that hold now; the old ones where that cannot be told."""
        asked = record if self._options.advertise is None else _advertising(record, self._options.advertise)
        try:
            now = followed(asked, await read_interfaces(), way_out((*self._others(), *record.managers)))
        except PyswarmError as error:
            _log.warning("the address of this node is still %s: %s", record.address, error)
            return record
        if now.address != record.address:
            _log.warning("the address of this node was %s and is %s now", record.address, now.address)
        if now != record:
            now.save(self._options)
        return now

    def _seeds(self) -> Sequence[str]:
        return self.record.seeds if self.record is not None else ()

    def _others(self) -> Sequence[str]:
        return self.member.agent.managers if self.member is not None else ()

    # ---------------------------------------------------------------- shared

    def check_not_member(self) -> None:
        if self.record is not None:
            raise FailedPrecondition(ALREADY_MEMBER)

    @contextlib.asynccontextmanager
    async def _change(self) -> AsyncIterator[None]:
        if self._changing.locked():
            raise Unavailable("this node's membership is being changed already: try again in a moment")
        async with self._changing:
            yield

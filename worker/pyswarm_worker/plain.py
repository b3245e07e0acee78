"""Plain containers of this node on networks of the cluster: asked for, kept, given back.

A container has a namespace of ours (a sandbox with its id) and a record on disk of what its user asked for; for each of
its networks the managers have a task, which says the addresses. Level-triggered: `settle` compares record, tasks and
sandbox, whatever happened before. What the managers forgot (the node was given up meanwhile) is asked for again, with
the same addresses if they are free; until somebody answers the container keeps what it has. A task without a record is
reported as ended, which gives its addresses back. Never runs containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Protocol

from msgspec.structs import replace

from pyswarm.v1 import attachments_pb2 as pb
from pyswarm_common.errors import AlreadyExists, Exhausted, FailedPrecondition, NotFound, PyswarmError, Unavailable
from pyswarm_common.model import Task, TaskState, TaskStatus
from pyswarm_overlay.types import Sandbox

from .attaching import AskPlace
from .core import plain as core
from .core.plain import Place, PlainRecord, Wanted
from .plain_file import PlainFile

_log = logging.getLogger(__name__)

_ASSIGNMENT_TIMEOUT_S = 20.0
_GIVING_BACK_TIMEOUT_S = 5.0
_RETRY_S = 5.0
_MAX_CONTAINERS = 1_000


class Attacher(Protocol):
    """What is needed of the overlay."""

    async def attach(self, sandbox: Sandbox, /) -> str: ...
    async def detach(self, sandbox_id: str, /) -> None: ...


class KnownNetworks(Protocol):
    """What is needed of the node's networks."""

    @property
    def internal_ids(self) -> tuple[str, ...]: ...
    async def sweep(self) -> None: ...


class PlainContainers:
    """One per agent; `run` it while the agent runs."""

    def __init__(
        self,
        file: PlainFile,
        overlay: Attacher,
        networks: KnownNetworks,
        ask: AskPlace,
        report: Callable[[str, TaskStatus], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._overlay, self._networks = overlay, networks
        self._ask, self._report, self._clock = ask, report, clock
        self._records: dict[str, PlainRecord] = {}
        self._paths: dict[str, str] = {}
        self._tasks: dict[str, Task] = {}
        self._problems: dict[str, str] = {}
        """What was told of containers that cannot be settled."""
        self._said: dict[str, TaskState] = {}
        self._asking: dict[str, None] = {}
        """Containers for which managers are being asked: their tasks may come before the answer."""
        self._locks: dict[str, asyncio.Lock] = {}
        self._changed = asyncio.Condition()
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()

    # ---------------------------------------------------------------- what the agent asks and tells

    @property
    def task_ids(self) -> tuple[str, ...]:
        return tuple(self._tasks)

    @property
    def container_ids(self) -> tuple[str, ...]:
        return tuple(self._records)

    def load(self, tasks: Iterable[Task]) -> None:
        """After a start: what was kept, without containers whose namespace died with the host."""
        self._records, self._paths = self._file.load()
        self._tasks = {task.id: task for task in tasks}
        self._look_at(self._records)
        self._look_at(_container_of(task) for task in self._tasks.values())

    async def take_up(self) -> None:
        """The namespaces of before, as they were: no manager is needed for that."""
        for record in list(self._records.values()):
            try:
                await self._overlay.attach(core.sandbox_of(record, self._networks.internal_ids))
            except PyswarmError as error:
                _log.warning("networks of container %s cannot be taken up: %s", record.name, error)

    async def assigned(self, tasks: Iterable[Task]) -> None:
        """Tasks that are new or have changed; the tables of their networks are applied."""
        for task in tasks:
            self._tasks[task.id] = task
            self._look_at([_container_of(task)])
        await self._tell()

    async def forgotten(self, task_ids: Iterable[str]) -> None:
        """Tasks that the managers know no more."""
        for task in [self._tasks.pop(task_id) for task_id in task_ids if task_id in self._tasks]:
            self._said.pop(task.id, None)
            self._look_at([_container_of(task)])
        await self._tell()

    async def clear(self) -> None:
        """This node leaves the cluster: containers stay without networks."""
        ids, self._tasks = list(self._records), {}
        self._records, self._paths = {}, {}
        for container_id in ids:
            await self._overlay.detach(container_id)
        if ids:
            await self._save()

    async def run(self) -> None:
        """For ever: settle what changed, and again what could not be settled."""
        failed: dict[str, None] = {}
        while True:
            try:
                async with asyncio.timeout(_RETRY_S if failed else None):
                    await self._wake.wait()
            except TimeoutError:
                self._dirty.update(failed)
            self._wake.clear()
            while self._dirty:
                container_id = next(iter(self._dirty))
                del self._dirty[container_id]
                failed.pop(container_id, None)
                if not await self._settled(container_id):
                    failed[container_id] = None

    # ---------------------------------------------------------------- what users ask

    def list(self) -> list[tuple[PlainRecord, str]]:
        """Every container with its namespace's path."""
        return [(record, self._paths.get(record.container_id, "")) for record in self._records.values()]

    async def attach(
        self, container_id: str, name: str, networks: Sequence[Wanted], dns: tuple[str, ...] = ()
    ) -> tuple[PlainRecord, str]:
        """A namespace for the container, on these networks; all of it, or a refusal and nothing."""
        async with self._locked(container_id):
            before = self._records.get(container_id)
            self._check_new(container_id, name)
            record = before or PlainRecord(container_id=container_id, name=name, dns=dns)
            try:
                self._records[container_id] = record
                for wanted in networks:
                    if record.place(wanted.network) is None:
                        record = await self._placed(record, wanted)
                return await self._bring(container_id)
            except BaseException:
                await self._undo(container_id, before)
                raise

    async def connect(self, reference: str, wanted: Wanted) -> Place:
        """Another network for a container that has a namespace."""
        container_id = core.find(self._records.values(), reference).container_id
        async with self._locked(container_id):
            before = core.find(self._records.values(), container_id)
            if before.place(wanted.network) is not None:
                raise AlreadyExists(f"endpoint with name {before.name} already exists in network {wanted.network}")
            try:
                place = (await self._placed(before, wanted)).places[-1]
                record, _ = await self._bring(container_id)
            except BaseException:
                await self._undo(container_id, before)
                raise
            return record.place(place.network_id) or place

    async def disconnect(self, reference: str, network: str, *, force: bool = False) -> None:
        """Off the network; what is not on it is refused, unless by force."""
        try:
            container_id = core.find(self._records.values(), reference).container_id
        except NotFound:
            if force:
                return
            raise
        async with self._locked(container_id):
            record = core.find(self._records.values(), container_id)
            place = record.place(network)
            if place is None:
                if force:
                    return
                raise FailedPrecondition(f"container {record.name} is not connected to network {network}")
            self._records[container_id] = record.without(place.network_id)
            await self._save()
            await self._bring(container_id)
            await self._networks.sweep()
            await self._give_back([place.task_id])

    async def detach(self, reference: str) -> None:
        """Remove the namespace and give all of it back; no-op for an unknown container."""
        try:
            container_id = core.find(self._records.values(), reference).container_id
        except NotFound:
            return
        async with self._locked(container_id):
            record = self._records.pop(container_id, None)
            self._paths.pop(container_id, None)
            await self._save()
            await self._overlay.detach(container_id)
            await self._networks.sweep()
            await self._give_back([place.task_id for place in record.places] if record is not None else [])

    # ---------------------------------------------------------------- how

    def _check_new(self, container_id: str, name: str) -> None:
        for record in self._records.values():
            if record.name == name and record.container_id != container_id:
                raise AlreadyExists(f'Conflict. The container name "/{name}" is already in use')
        if container_id not in self._records and len(self._records) >= _MAX_CONTAINERS:
            raise Exhausted(f"{_MAX_CONTAINERS} plain containers have a namespace already: remove some of them first")

    async def _placed(self, record: PlainRecord, wanted: Wanted) -> PlainRecord:
        """The record with a place on that network, which the managers have given an address."""
        if len(record.places) >= core.MAX_PLACES:
            raise Exhausted(f"a container is on {core.MAX_PLACES} networks at most")
        self._asking[record.container_id] = None
        try:
            place = await self._asked(record, wanted.network, wanted.aliases, wanted.addresses)
        finally:
            self._asking.pop(record.container_id, None)
            self._look_at([record.container_id])
        place = replace(place, interface=core.free_interface(record), asked=wanted.addresses)
        record = self._records[record.container_id] = record.having(place)
        await self._save()
        try:
            async with asyncio.timeout(_ASSIGNMENT_TIMEOUT_S), self._changed:
                await self._changed.wait_for(lambda: place.task_id in self._tasks)
        except TimeoutError:
            raise Unavailable(
                f"the managers have given {record.name} a place on network {place.network_name}, but this node has not "
                "heard of it: does it have a session with a manager (pyswarm info)?"
            ) from None
        return record

    async def _asked(
        self, record: PlainRecord, network: str, aliases: tuple[str, ...], addresses: tuple[str, ...]
    ) -> Place:
        request = pb.AttachRequest(
            container_id=record.container_id,
            container_name=record.name,
            network=network,
            aliases=aliases,
            addresses=addresses,
        )
        answer = await self._ask(request)
        name = answer.network.spec.name
        return Place(
            network_id=answer.network.id, network_name=name, interface="", aliases=aliases, task_id=answer.task_id
        )

    async def _bring(self, container_id: str) -> tuple[PlainRecord, str]:
        """The namespace as the record and the tasks say; then its tasks run."""
        record = core.with_addresses(self._records[container_id], self._tasks)
        path = await self._overlay.attach(core.sandbox_of(record, self._networks.internal_ids))
        is_changed = (record, path) != (self._records[container_id], self._paths.get(container_id))
        self._records[container_id], self._paths[container_id] = record, path
        if is_changed:
            await self._save()
        for place in record.places:
            task = self._tasks.get(place.task_id)
            if task is not None and task.status.state < TaskState.RUNNING:
                self._say(task, TaskState.RUNNING, "attached")
        return record, path

    async def _undo(self, container_id: str, before: PlainRecord | None) -> None:
        """What was asked for and could not be had in full; its tasks end when they are looked at."""
        if before is not None:
            self._records[container_id] = before
            with contextlib.suppress(PyswarmError):
                await self._bring(container_id)
        else:
            self._records.pop(container_id, None)
            self._paths.pop(container_id, None)
            await self._overlay.detach(container_id)
        await self._save()
        self._look_at([container_id])

    async def _give_back(self, task_ids: Iterable[str]) -> None:
        """End the tasks; the managers' word that they have is waited for a moment, so that a network can be removed."""
        ids = [task_id for task_id in task_ids if task_id in self._tasks]
        for task_id in ids:
            self._say(self._tasks[task_id], TaskState.SHUTDOWN, "detached")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GIVING_BACK_TIMEOUT_S), self._changed:
                await self._changed.wait_for(lambda: not any(task_id in self._tasks for task_id in ids))

    async def _settled(self, container_id: str) -> bool:
        """Whether nothing is left to do for the container."""
        try:
            async with self._locked(container_id):
                await self._settle(container_id)
        except (PyswarmError, TimeoutError) as error:
            if self._problems.get(container_id) != str(error):
                _log.warning("networks of container %s: %s", container_id[:12], error)
            self._problems[container_id] = str(error)
            return False
        self._problems.pop(container_id, None)
        return True

    async def _settle(self, container_id: str) -> None:
        before = self._records.get(container_id)
        self._end_unwanted(container_id)
        record = self._records.get(container_id)
        if record is None:
            return
        for place in record.places:
            if place.task_id not in self._tasks:
                await self._ask_again(record, place)
        if self._records[container_id] is not before:  # a place that was lost is not asked for again after a restart
            await self._save()
        await self._bring(container_id)

    def _end_unwanted(self, container_id: str) -> None:
        if container_id in self._asking:
            return  # looked at again once there is an answer
        record = self._records.get(container_id)
        kept = {place.task_id for place in record.places} if record is not None else set()
        for task in [task for task in self._tasks.values() if _container_of(task) == container_id]:
            if record is not None and task.id in kept and task.desired_state > TaskState.RUNNING:
                places = tuple(place for place in record.places if place.task_id != task.id)
                record = self._records[container_id] = replace(record, places=places)
                kept.discard(task.id)
            if task.id not in kept:
                self._say(task, TaskState.SHUTDOWN, "no container has this place any more")

    async def _ask_again(self, record: PlainRecord, place: Place) -> None:
        """The same place once more; another address where its own were given to somebody else."""
        try:
            found = await self._asked_with_hints(record, place)
        except (Unavailable, TimeoutError):
            raise
        except PyswarmError as error:
            _log.warning("container %s loses network %s: %s", record.name, place.network_name, error)
            self._records[record.container_id] = self._records[record.container_id].without(place.network_id)
            return
        current = self._records[record.container_id]
        self._records[record.container_id] = current.having(replace(place, task_id=found.task_id))
        await self._save()

    async def _asked_with_hints(self, record: PlainRecord, place: Place) -> Place:
        hints = core.hints(place)
        try:
            return await self._asked(record, place.network_id, place.aliases, hints)
        except (FailedPrecondition, AlreadyExists):
            if place.asked or not hints:
                raise
            return await self._asked(record, place.network_id, place.aliases, ())

    def _say(self, task: Task, state: TaskState, message: str) -> None:
        if self._said.get(task.id) is state:
            return
        self._said[task.id] = state
        self._report(task.id, TaskStatus(timestamp=self._clock(), state=state, message=message))

    def _look_at(self, container_ids: Iterable[str]) -> None:
        self._dirty.update(dict.fromkeys(container_ids))
        self._wake.set()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _save(self) -> None:
        await self._file.save(self._records.values(), self._paths)

    @contextlib.asynccontextmanager
    async def _locked(self, container_id: str) -> AsyncIterator[None]:
        """What is done for one container follows one another."""
        lock = self._locks.setdefault(container_id, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and self._locks.get(container_id) is lock:
                del self._locks[container_id]


def _container_of(task: Task) -> str:
    return task.spec.attachment.container_id if task.spec.attachment is not None else ""

"""Network tables and published ports: what the managers say becomes the overlay's state.

Keeps the tables as they were told (to find the backends of published ports), hands complete tables and increments on,
and says which version is programmed: only once all of it is in the kernel, VIPs and published ports too, since managers
stop what is then no backend any more. What cannot be programmed is tried again. Decides nothing: a gap in the
increments is asked for again. One change at a time, in the order of the messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.errors import AlreadyExists, FailedPrecondition, PyswarmError
from pyswarm_common.model import Task

from .core.tables import KnownTable, delta_to_overlay, ingress_ports
from .ports import Overlay

_log = logging.getLogger(__name__)

_RETRY_S = 5.0

Say = Callable[[pb.AgentMessage], None]
"""Tell the managers, if there is a session."""


class Networks:
    """What this node knows of its networks."""

    def __init__(self, overlay: Overlay, say: Say, forget: Callable[[str], Awaitable[None]]) -> None:
        """`forget` takes a removed network off the disk."""
        self._overlay = overlay
        self._say = say
        self._forget = forget
        self._leaving: dict[str, None] = {}
        self._tables: dict[str, KnownTable] = {}
        self._ingress: pb.IngressTable | None = None
        self._ingress_error = ""
        self._failed: dict[str, None] = {}
        """Networks that are not programmed as they were told."""
        self._has_conflict = False
        self._to_retry = asyncio.Event()
        self._lock = asyncio.Lock()

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._tables)

    @property
    def is_busy(self) -> bool:
        """Some change is being programmed."""
        return self._lock.locked()

    @property
    def internal_ids(self) -> tuple[str, ...]:
        return tuple(key for key, table in self._tables.items() if table.network.spec.internal)

    def is_found_by_name(self, task: Task) -> bool:
        """Whether clients find it by an address that a name led to, and not by a virtual one."""
        tables = [self._tables.get(attachment.network_id) for attachment in task.networks]
        return any(table is not None and table.is_found_by_name(task.service_id) for table in tables)

    async def restore(self, tables: dict[str, KnownTable], ingress: pb.IngressTable | None) -> None:
        """Program again what was known before the restart."""
        async with self._lock:
            self._tables, self._ingress = dict(tables), ingress
            for table in self._tables.values():
                await self._program(table)
            await self._set_ingress()

    def fitting(self, tables: Iterable[pb.NetworkTable]) -> list[pb.NetworkTable]:
        """Those that can be applied; for the others, the whole table is asked for.

        Called before the tables are written to disk, so that the disk never holds a table with a hole.
        """
        out = []
        versions = {network_id: table.version for network_id, table in self._tables.items()}
        for table in tables:
            if table.complete or versions.get(table.network_id) == table.from_version:
                out.append(table)
                versions[table.network_id] = table.version
            else:
                _log.info("table of network %s does not fit: asking for all of it", table.network_id)
                self._say(pb.AgentMessage(resync_network_id=table.network_id))
        return out

    async def apply(
        self, tables: Iterable[pb.NetworkTable], removed: Iterable[str], ingress: pb.IngressTable | None
    ) -> None:
        async with self._lock:
            self._ingress = ingress if ingress is not None else self._ingress
            has_ports = ingress is not None
            is_published = self._ingress is not None and self._ingress.network_id not in self._failed
            for table in tables:
                is_programmed = await self._apply_table(table)
                if self._is_ingress(table.network_id):
                    has_ports, is_published = True, is_programmed
                else:
                    self._programmed(table.network_id, is_programmed)
            if has_ports:
                await self._publish(is_published)
            self._leaving.update(dict.fromkeys(removed))
            await self._remove_leaving()

    async def remove_unknown(self) -> None:
        """Remove what the overlay holds beyond our tables: left by a daemon that ended between its disk and its kernel.

        To be called once the managers have named everything that this node is to have.
        """
        async with self._lock:
            self._leaving.update(dict.fromkeys(key for key in self._overlay.networks() if key not in self._tables))
            await self._remove_leaving()

    async def run_retries(self) -> None:
        """For ever: take a published port that another program on this host has as soon as that lets go of it, and
        program what could not be."""
        while True:
            await self._to_retry.wait()
            await asyncio.sleep(_RETRY_S)
            async with self._lock:
                self._to_retry.clear()
                for network_id in list(self._failed):
                    await self._retry(network_id)
                if self._has_conflict:
                    await self._set_ingress()

    async def _retry(self, network_id: str) -> None:
        table = self._tables.get(network_id)
        if table is None:
            self._failed.pop(network_id, None)
            return
        is_programmed = await self._program(table)
        if self._is_ingress(network_id):
            await self._publish(is_programmed)
        else:
            self._programmed(network_id, is_programmed)

    async def sweep(self) -> None:
        """Remove what could not be removed while it was in use. To be called when a sandbox has gone."""
        if self._leaving:
            async with self._lock:
                await self._remove_leaving()

    async def _apply_table(self, message: pb.NetworkTable) -> bool:
        known = self._tables.get(message.network_id)
        self._leaving.pop(message.network_id, None)
        if message.complete or known is None:
            known = self._tables[message.network_id] = KnownTable.of(message)
            return await self._program(known)
        known.apply(message)
        return await self._program_delta(known, message)

    def _programmed(self, network_id: str, succeeded: bool) -> None:
        """The kernel is as the table says, or it is tried again: nobody else would."""
        if not succeeded:
            self._failed[network_id] = None
            self._to_retry.set()
            return
        self._failed.pop(network_id, None)
        done = pb.TablesProgrammed(network_id=network_id, version=self._tables[network_id].version)
        self._say(pb.AgentMessage(tables_programmed=done))

    async def _program(self, table: KnownTable) -> bool:
        try:
            await self._overlay.apply_table(table.to_overlay())
        except PyswarmError as error:
            _log.error("network %s cannot be programmed: %s", table.network.spec.name, error)
            return False
        return True

    async def _program_delta(self, known: KnownTable, message: pb.NetworkTable) -> bool:
        try:
            if await self._overlay.apply_delta(delta_to_overlay(message)):
                return True
        except PyswarmError as error:
            _log.error("network %s cannot be programmed: %s", known.network.spec.name, error)
            return False
        return await self._program(known)  # the overlay lost count, we did not

    async def _remove_leaving(self) -> None:
        for network_id in list(self._leaving):
            try:
                await self._overlay.remove_network(network_id)
            except FailedPrecondition:  # in use until its last sandbox has gone
                continue
            except PyswarmError as error:
                _log.warning("network %s cannot be removed: %s", network_id, error)
            self._leaving.pop(network_id, None)
            self._tables.pop(network_id, None)
            await self._forget(network_id)

    def _is_ingress(self, network_id: str) -> bool:
        return self._ingress is not None and self._ingress.network_id == network_id

    async def _publish(self, is_programmed: bool) -> None:
        """Published ports lead to the backends on the ingress network: its table counts only together with them."""
        is_done = await self._set_ingress() and is_programmed
        if self._ingress is not None and self._ingress.network_id in self._tables:
            self._programmed(self._ingress.network_id, is_done)

    async def _set_ingress(self) -> bool:
        """Whether it is done: but for ports that another program has."""
        ingress = self._ingress
        if ingress is None:
            return True
        known = self._tables.get(ingress.network_id)
        ports = ingress_ports(ingress.ports, known.endpoints if known is not None else {})
        self._has_conflict = False
        reason, is_done = "", True
        try:
            await self._overlay.set_ingress(tuple(ingress.node_addresses), ports)
        except AlreadyExists as error:  # the other ports work
            reason = str(error)
            self._has_conflict = True
            self._to_retry.set()
        except PyswarmError as error:
            reason, is_done = f"published ports cannot be programmed: {error}", False
        self._say_ingress(reason)
        return is_done

    def _say_ingress(self, reason: str) -> None:
        """Once, however often it is tried; and when it is over."""
        if reason and reason != self._ingress_error:
            _log.error("%s", reason)
        if self._ingress_error and not reason:
            _log.info("all published ports work now")
        self._ingress_error = reason

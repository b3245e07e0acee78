"""Follows this machine's addresses as long as the daemon runs: when they change, the node's do.

`moving` decides which address the node has; what is open is opened anew with it, and the manager is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from pyswarm_common.errors import PyswarmError

from .addresses import read_interfaces
from .moving import address_changes, followed, way_out
from .paths import NodeRecord, Options
from .standing import Standing
from .stay import Stay

_log = logging.getLogger(__name__)


class AddressWatch:
    """One per daemon. `start` and `close` it."""

    def __init__(
        self, options: Options, standing: Standing, stay: Stay, on_failed: Callable[[BaseException], None]
    ) -> None:
        self._options, self._standing, self._stay = options, standing, stay
        self._on_failed = on_failed
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            async for _ in address_changes():
                await self._look()
        except Exception as error:
            self._on_failed(error)

    async def _look(self) -> None:
        standing = self._standing
        async with standing.changing:
            if standing.record is None or standing.member is None:
                return
            record = await self.present(standing.record)
            if record != standing.record:
                await standing.manager.readdress(record)
                await self._stay.reenter(record)

    async def present(self, record: NodeRecord) -> NodeRecord:
        """The record with the addresses that hold now; the old ones where that cannot be told."""
        try:
            now = followed(
                self._asked(record),
                await read_interfaces(),
                way_out((*self._standing.known_managers(), *record.managers)),
            )
        except PyswarmError as error:
            _log.warning("the address of this node is still %s: %s", record.address, error)
            return record
        if now.address != record.address:
            _log.warning("the address of this node was %s and is %s now", record.address, now.address)
        if now != record:
            now.save(self._options)
        return now

    def _asked(self, record: NodeRecord) -> NodeRecord:
        """The daemon's own option goes before what the machine joined with."""
        if self._options.advertise is None:
            return record
        return msgspec.structs.replace(record, advertise=self._options.advertise)

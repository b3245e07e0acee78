"""The manager of this machine stands still while its files are read, rewritten or replaced.

Decides only the order, and that nothing else changes the membership meanwhile; what is done to the files is the
recovery's business. Whatever happens, the manager runs again afterwards. Containers run on.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from .joining import NewManager
from .paths import NodeRecord, Options
from .standing import Standing
from .stay import Stay


class Standstill:
    """One per daemon."""

    def __init__(self, options: Options, standing: Standing, stay: Stay) -> None:
        self._options, self._standing, self._stay = options, standing, stay

    @contextlib.asynccontextmanager
    async def manager_stopped(self, *, needs_state: bool = True) -> AsyncIterator[NodeRecord]:
        """Nobody uses the manager's files meanwhile; it runs again afterwards, whatever happens."""
        manager = self._standing.manager
        async with self._standing.change():
            self._standing.check_manager(needs_state=needs_state)
            assert self._standing.record is not None
            await manager.stop()
            try:
                yield self._standing.record
            finally:
                if not manager.is_wanted and manager.has_state:
                    manager.start()

    async def move(self, record: NodeRecord) -> None:
        """This node has other addresses from now on. The manager must be stopped."""
        if record != self._standing.record:
            await self._stay.reenter(record)

    async def restore_in_place(self, prepare: Callable[[NodeRecord], Awaitable[NewManager]]) -> NodeRecord:
        """The same node with another state of its cluster; what runs here goes on as far as that knows of it."""
        manager = self._standing.manager
        async with self.manager_stopped(needs_state=False) as old, contextlib.AsyncExitStack() as undo:
            identity = self._standing.identity
            assert identity is not None
            manager.set_aside()
            undo.callback(manager.put_back)
            new = await prepare(old)
            undo.callback(identity.replace, identity())
            identity.replace(new.identity)
            manager.configure(new.record, new.raft_id, ())
            await manager.start_and_wait()
            manager.forget_aside()
            undo.pop_all()
        self._stay.forget_wishes()
        new.record.save(self._options)
        self._standing.record = new.record
        if self._standing.member is not None:
            await self._standing.member.agent.identity_changed()
        return new.record

"""The dispatcher of one manager: a term while it leads, a refusal that names the leader while it does not."""

from __future__ import annotations

import time
from collections.abc import Callable

from pyswarm_common.errors import Unavailable
from pyswarm_common.ids import IdSource
from pyswarm_manager.dispatcher.handover import Handover
from pyswarm_manager.dispatcher.statistics import UsageSink, ignore
from pyswarm_manager.dispatcher.term import Term
from pyswarm_manager.store.store import Store


class NotLeading(Unavailable):
    """Ask the leader, whose address it carries if one is known."""

    def __init__(self, leader_address: str | None) -> None:
        where = f"the leader is {leader_address}" if leader_address else "no leader is known yet"
        super().__init__(f"this manager does not lead the swarm: {where}")
        self.leader_address = leader_address


class Dispatcher:
    """Lives as long as the manager; `run` as long as it leads."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        new_id: IdSource,
        leader_address: Callable[[], str | None],
        silent_members: Callable[[], frozenset[int]] = frozenset,
        monotonic: Callable[[], float] = time.monotonic,
        seeds: Callable[[], tuple[str, ...]] = tuple,
        on_usage: UsageSink = ignore,
    ) -> None:
        """`silent_members`: the raft ids that the leader does not hear of. `seeds`: names that lead to managers.
        `on_usage` is told what tasks use, of services for which somebody wants to know."""
        self._seeds, self._on_usage = seeds, on_usage
        self._store, self._clock, self._new_id = store, clock, new_id
        self._leader_address, self._silent_members = leader_address, silent_members
        self._monotonic = monotonic
        self._term: Term | None = None
        self.handover = Handover()

    async def run(self) -> None:
        """Serve sessions until cancelled: one term."""
        assert self._term is None, "a term begins after the last one ended"
        term = self._term = Term(
            self._store,
            self._clock,
            self._new_id,
            self._silent_members,
            self._monotonic,
            self._seeds,
            self.handover.tell,
            self._on_usage,
        )
        self.handover.begin(term.tables)
        try:
            await term.run()
        finally:
            self._term = None
            self.handover.end()
            term.end(self.not_leading())

    @property
    def term(self) -> Term:
        """The term under way. Raises NotLeading."""
        if self._term is None:
            raise self.not_leading()
        return self._term

    def images_of(self, node_id: str) -> frozenset[str] | None:
        """The images of a node, as far as it told this leader."""
        return self._term.images_of(node_id) if self._term is not None else None

    def table_versions(self) -> dict[str, int]:
        """Of every network's table. Raises NotLeading."""
        return self.term.tables.versions()

    def not_leading(self) -> NotLeading:
        """The refusal of a manager that does not lead."""
        return NotLeading(self._leader_address())

"""Which version of each network's table every node that needs it has in its kernel: what agents acknowledged.

Decides when everybody who may send connections on a network has heard of a change. Counted are the nodes that hold the
table and are not down: for the ingress network all of them, for others those with tasks on it. Versions are indices of
the store, so acknowledgements are comparable from one leader to the next; a new leader begins with none of them, and
hears each again when the node's session begins. No time is involved: a slow agent delays, and never breaks. One that
acknowledges nothing at all is excused (`patience` says when), until it does.

A network's floor is the oldest version that any of its nodes has. It is kept by a heap, so an acknowledgement costs the
logarithm of the network's nodes, and nothing grows with the cluster.

Never decides what follows from it: the planner goes on with an update, the dispatcher lets a task be stopped.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

_SLACK = 16


class _Floor:
    """One network's nodes and whoever waits for them."""

    __slots__ = ("acked", "heap", "holders", "waiting", "waits")

    def __init__(self) -> None:
        self.holders: set[str] = set()
        self.acked: dict[str, int] = {}
        """Of nodes that are down too: their kernels keep what they have."""
        self.heap: list[tuple[int, str]] = []
        self.waiting: dict[str, int] = {}
        """Task id -> the version that everybody must have."""
        self.waits: list[tuple[int, str]] = []

    def add(self, node_id: str) -> None:
        self.holders.add(node_id)
        self._push(self.acked.get(node_id, 0), node_id)

    def acknowledge(self, node_id: str, version: int) -> bool:
        """Whether that is news."""
        if version <= self.acked.get(node_id, 0):
            return False
        self.acked[node_id] = version
        if node_id in self.holders:
            self._push(version, node_id)
        return True

    def has(self, version: int) -> bool:
        """Whether every holder has the version, or a later one."""
        while self.heap and self._is_stale(*self.heap[0]):
            heapq.heappop(self.heap)
        return not self.heap or self.heap[0][0] >= version

    def behind(self, version: int) -> list[str]:
        return sorted(node_id for node_id in self.holders if self.acked.get(node_id, 0) < version)

    def wait(self, task_id: str, version: int) -> None:
        self.waiting[task_id] = version
        heapq.heappush(self.waits, (version, task_id))
        if len(self.waits) > 2 * len(self.waiting) + _SLACK:
            self.waits = sorted((version, task_id) for task_id, version in self.waiting.items())

    def reached(self) -> list[str]:
        """The tasks that waited for no more than what everybody has now."""
        out = []
        while self.waits and self.has(self.waits[0][0]):
            version, task_id = heapq.heappop(self.waits)
            if self.waiting.get(task_id) == version:
                del self.waiting[task_id]
                out.append(task_id)
        return out

    def _push(self, version: int, node_id: str) -> None:
        heapq.heappush(self.heap, (version, node_id))
        if len(self.heap) > 2 * len(self.holders) + _SLACK:
            self.heap = sorted((self.acked.get(holder, 0), holder) for holder in self.holders)

    def _is_stale(self, version: int, node_id: str) -> bool:
        return node_id not in self.holders or self.acked.get(node_id, 0) != version


class Programmed:
    """The acknowledgements of all networks. Belongs to `NetworkTables`, which tells it who uses what."""

    def __init__(self) -> None:
        self._floors: dict[str, _Floor] = {}
        self._uses: dict[str, dict[str, int]] = {}
        """Node id -> network id -> how many records of the network's table are that node's."""
        self._up: set[str] = set()
        self._excused: set[str] = set()
        self._heard: set[str] = set()
        """Who acknowledged something new since `take_heard`."""
        self._reached: dict[str, None] = {}

    def use(self, node_id: str, network_id: str, count: int) -> None:
        """`count` (1 or -1) more of the node's records are in the network's table."""
        uses = self._uses.setdefault(node_id, {})
        before = uses.get(network_id, 0)
        if before + count > 0:
            uses[network_id] = before + count
            if not before and self._counts(node_id):
                self._floor(network_id).add(node_id)
        elif before:
            del uses[network_id]
            self._drop(node_id, network_id)
            if network_id in self._floors:
                self._floors[network_id].acked.pop(node_id, None)
        if not uses:
            del self._uses[node_id]

    def set_up(self, node_id: str, is_up: bool) -> None:
        """Whether the node takes part: what is down sends nothing, and is not waited for."""
        if is_up == (node_id in self._up):
            return
        (self._up.add if is_up else self._up.discard)(node_id)
        if not is_up:
            self._excused.discard(node_id)  # when it comes back it may have come to its senses
        self._count(node_id, is_up)

    def excuse(self, node_id: str) -> None:
        """Do not wait for the node until it acknowledges something new, or goes down and comes back."""
        if node_id in self._up:
            self._excused.add(node_id)
            self._count(node_id, False)

    def acknowledge(self, node_id: str, network_id: str, version: int) -> None:
        """The node has this version of the table in its kernel, and whatever came before."""
        if network_id in self._uses.get(node_id, ()):
            floor = self._floor(network_id)
            if floor.acknowledge(node_id, version):
                self._heard.add(node_id)
                if node_id in self._excused:
                    self._excused.discard(node_id)
                    self._count(node_id, True)
            self._note(floor)

    def forget_network(self, network_id: str) -> None:
        """The network is gone: nobody uses it, nobody waits for it."""
        for uses in self._uses.values():
            uses.pop(network_id, None)
        floor = self._floors.pop(network_id, None)
        if floor is not None:
            self._reached.update(dict.fromkeys(floor.waiting))

    def has(self, network_id: str, version: int) -> bool:
        """Whether every node that needs the network's table has that version of it."""
        floor = self._floors.get(network_id)
        return floor is None or floor.has(version)

    def behind(self, network_id: str, version: int) -> list[str]:
        """The nodes that are waited for. Looks at all that hold the table: for messages only."""
        floor = self._floors.get(network_id)
        return [] if floor is None else floor.behind(version)

    def wait(self, task_id: str, needs: Iterable[tuple[str, int]]) -> None:
        """Have `take_reached` name the task when a (network, version) of these is everywhere."""
        for network_id, version in needs:
            self._floor(network_id).wait(task_id, version)

    def waiting(self) -> frozenset[str]:
        """The tasks that are waited for."""
        return frozenset(task_id for floor in self._floors.values() for task_id in floor.waiting)

    def holding_up(self) -> frozenset[str]:
        """The nodes that anything waits for. Looks at all nodes of the networks with waiting tasks."""
        floors = [floor for floor in self._floors.values() if floor.waiting]
        return frozenset(node_id for floor in floors for node_id in floor.behind(max(floor.waiting.values())))

    def take_heard(self) -> frozenset[str]:
        """The nodes that acknowledged something new since the last call."""
        heard, self._heard = frozenset(self._heard), set()
        return heard

    def take_reached(self) -> list[str]:
        """Tasks for which something they waited for came true since the last call."""
        reached, self._reached = list(self._reached), {}
        return reached

    def _floor(self, network_id: str) -> _Floor:
        floor = self._floors.get(network_id)
        if floor is None:
            floor = self._floors[network_id] = _Floor()
        return floor

    def _counts(self, node_id: str) -> bool:
        return node_id in self._up and node_id not in self._excused

    def _count(self, node_id: str, counts: bool) -> None:
        """Whether the node is waited for, on all of its networks."""
        for network_id in self._uses.get(node_id, ()):
            if counts:
                self._floor(network_id).add(node_id)
            else:
                self._drop(node_id, network_id)

    def _drop(self, node_id: str, network_id: str) -> None:
        floor = self._floors.get(network_id)
        if floor is not None:
            floor.holders.discard(node_id)
            self._note(floor)

    def _note(self, floor: _Floor) -> None:
        if floor.waits:
            self._reached.update(dict.fromkeys(floor.reached()))

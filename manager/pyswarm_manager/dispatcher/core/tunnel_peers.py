"""Which nodes share an encrypted network, and so must know one another's tunnel keys. Nobody else is told.

Follows the network tables: a node is on a network while it has an endpoint there. Every node has a revision, which
rises when something changed that it must hear of: its peers, or one of them, or how old keys may become. So a session
whose node's revision is as before needs no look at peers, and a change costs something only to the nodes that share a
network with it. Decides nothing about keys: nodes make them.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.codec import to_proto
from pyswarm_common.model import Network, Node, NodeState
from pyswarm_common.network_options import OVERLAY, is_encrypted
from pyswarm_manager.dispatcher.core import records


class TunnelPeers:
    """Of one term."""

    def __init__(self, rotation_s: float) -> None:
        self.rotation_s = rotation_s
        """How old a tunnel key may become."""
        self._users: dict[str, dict[str, int]] = {}
        """Encrypted network -> node -> how many endpoints it has there."""
        self._networks: dict[str, dict[str, None]] = {}
        """Node -> its encrypted networks."""
        self._records: dict[str, bytes] = {}
        """Of the nodes whose word on address and keys stands."""
        self._said: dict[str, bytes] = {}
        self._claims = Claims()
        self._revisions: dict[str, int] = {}
        self._revision = 0
        self._changed: dict[str, None] = {}

    def revision(self, node_id: str) -> int:
        """Rises with what the node must hear of; zero for a node without encrypted networks."""
        return self._revisions.get(node_id, 0)

    def peers_of(self, node_id: str) -> dict[str, bytes]:
        """Node id -> serialised TunnelPeer, of all nodes on its encrypted networks that have keys, but itself."""
        return {
            other: self._records[other]
            for other in self._neighbours(node_id)
            if other != node_id and other in self._records
        }

    def take_changed(self) -> list[str]:
        """Nodes whose revision rose since the last call."""
        changed = list(self._changed)
        self._changed.clear()
        return changed

    def set_network(self, network: Network) -> None:
        """A network appears, or changes in what cannot concern us: whether it is encrypted never changes."""
        if network.spec.driver in ("", OVERLAY) and is_encrypted(network.spec.options):
            self._users.setdefault(network.id, {})

    def forget_network(self, network_id: str) -> None:
        """It is gone, and nobody is on it any more."""
        for node_id in list(self._users.pop(network_id, {})):
            self._leave(node_id, network_id)

    def use(self, node_id: str, network_id: str, step: int) -> None:
        """The node has one endpoint more (or fewer) on the network."""
        users = self._users.get(network_id)
        if users is None:
            return
        before = users.get(node_id, 0)
        users[node_id] = before + step
        if before == 0:
            self._networks.setdefault(node_id, {})[network_id] = None
            self._raise(users)
        elif users[node_id] == 0:
            del users[node_id]
            self._leave(node_id, network_id)
            self._raise((*users, node_id))

    def set_node(self, node_id: str, node: Node | None) -> None:
        """A node appears, changes or goes: with it its key, at once and wherever it was known."""
        said = None if node is None else _record(node)
        self._said.pop(node_id, None)
        if said is not None:
            self._said[node_id] = said
        if node is None:
            self._revisions.pop(node_id, None)
        tokens = () if node is None or said is None else _tokens(node)
        is_up = node is not None and node.status.state is not NodeState.DOWN
        for concerned in dict.fromkeys((node_id, *self._claims.put(node_id, tokens, is_up=is_up))):
            self._settle(concerned)

    def set_rotation(self, rotation_s: float) -> None:
        """What the cluster's specification says."""
        if rotation_s != self.rotation_s:
            self.rotation_s = rotation_s
            self._raise(list(self._networks))

    def _settle(self, node_id: str) -> None:
        """Hand out what the node says, or no more."""
        record = self._said.get(node_id) if self._claims.is_alone(node_id) else None
        if self._records.get(node_id) == record:
            return
        self._records.pop(node_id, None)
        if record is not None:
            self._records[node_id] = record
        self._raise(other for other in self._neighbours(node_id) if other != node_id)

    def _leave(self, node_id: str, network_id: str) -> None:
        networks = self._networks.get(node_id, {})
        networks.pop(network_id, None)
        if not networks:
            self._networks.pop(node_id, None)

    def _neighbours(self, node_id: str) -> dict[str, None]:
        """In the order in which they came; itself too."""
        networks = self._networks.get(node_id, {})
        return {other: None for network_id in networks for other in self._users[network_id]}

    def _raise(self, node_ids: Iterable[str]) -> None:
        self._revision += 1
        for node_id in node_ids:
            self._revisions[node_id] = self._revision
            self._changed[node_id] = None


class Claims:
    """Who says that an address or a key is its own. A node that says so of another's would get what is sent to that
    one, so where two that are up say the same, neither is believed. One that is down (a machine that joined anew, say)
    gives way to one that is up."""

    def __init__(self) -> None:
        self._claimants: dict[bytes, dict[str, bool]] = {}
        """Address or key -> node -> whether that is up."""
        self._tokens: dict[str, tuple[bytes, ...]] = {}

    def put(self, node_id: str, tokens: tuple[bytes, ...], *, is_up: bool) -> list[str]:
        """What the node says now. Returns the nodes that have said the same, before or now."""
        before = self._tokens.pop(node_id, ())
        concerned = [other for token in before for other in self._claimants[token]]
        for token in before:
            del self._claimants[token][node_id]
            if not self._claimants[token]:
                del self._claimants[token]
        for token in tokens:
            claimants = self._claimants.setdefault(token, {})
            concerned += claimants
            claimants[node_id] = is_up
        if tokens:
            self._tokens[node_id] = tokens
        return concerned

    def is_alone(self, node_id: str) -> bool:
        """Whether nobody else's word stands against this node's."""
        return all(self._wins(node_id, self._claimants[token]) for token in self._tokens.get(node_id, ()))

    @staticmethod
    def _wins(node_id: str, claimants: dict[str, bool]) -> bool:
        others = [is_up for other, is_up in claimants.items() if other != node_id]
        return not any(others) if claimants[node_id] else not others


def _tokens(node: Node) -> tuple[bytes, ...]:
    keys = (key.public_key for key in node.description.tunnel_keys)
    return tuple(dict.fromkeys((_written_one_way(records.node_address(node)), *keys)))


def _written_one_way(address: str) -> bytes:
    try:
        return ip_address(address).packed
    except ValueError:
        return address.encode()


def _record(node: Node) -> bytes | None:
    """What peers are told; None while there is no key, or no address to reach it at."""
    address = records.node_address(node)
    if not node.description.tunnel_keys or not address:
        return None
    keys = [to_proto(key) for key in node.description.tunnel_keys]
    return pb.TunnelPeer(node_id=node.id, data_path_address=address, keys=keys).SerializeToString()

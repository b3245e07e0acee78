"""Where agents find managers, and whom they ask when they find none. Pure.

The agents of managers can be asked, since a manager that hands over stays a node of the cluster; and those of a few
other nodes, since it may leave. They are always the same few, so that nodes which come and go change little.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nsmallest

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.model import Node

OTHERS = 8
"""So many nodes that are no managers are named."""

Place = tuple[str, str]
"""Where a node's manager is, if it has one, and its agent."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What all agents are told."""

    managers: tuple[str, ...]
    agents: tuple[str, ...]

    def told(self, seeds: tuple[str, ...]) -> pb.ManagerList:
        """As it is sent."""
        return pb.ManagerList(addresses=self.managers, seeds=seeds, agent_addresses=self.agents)


def place_of(node: object) -> Place | None:
    """What of a node matters here; None of a node that is not there."""
    if not isinstance(node, Node):
        return None
    manager = node.manager_status.address if node.manager_status is not None else ""
    return manager, node.description.agent_address


def whereabouts(nodes: Iterable[Node]) -> Whereabouts:
    """Of the cluster's nodes."""
    places = [(node.id, *(place_of(node) or ("", ""))) for node in nodes]
    managers = sorted((manager, agent) for _, manager, agent in places if manager)
    others = nsmallest(OTHERS, ((node_id, agent) for node_id, manager, agent in places if agent and not manager))
    agents = [agent for _, agent in managers if agent] + [agent for _, agent in others]
    return Whereabouts(tuple(manager for manager, _ in managers), tuple(agents))

"""The names that certificates carry and clients verify: a role in the cluster, never a host's name.

Knows no certificates itself, so that whoever only dials need not load what reads them.
"""

from __future__ import annotations

from pyswarm_common.model import NodeRole

NODE_SERVER_NAME = "swarm-node"
"""A name in every node's certificate: verified where any node may answer (its agent), whatever its role."""

ROLE_NAMES = {NodeRole.MANAGER: "swarm-manager", NodeRole.WORKER: "swarm-worker"}


def role_name(role: NodeRole) -> str:
    """The organisational unit of that role; also the server name that a client verifies."""
    return ROLE_NAMES[role]

"""How a manager opens a lane of Raft to another one: at its HTTPS door, which must prove to be a manager's."""

from __future__ import annotations

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.https_door import pinned
from pyswarm_common.identity import NodeIdentity, role_name
from pyswarm_common.model import NodeRole
from pyswarm_manager.config import split_address
from pyswarm_manager.raft.lanes.sending import SendingLane, open_lane


async def lane_to(address: str, ticket: bytes, identity: NodeIdentity) -> SendingLane:
    """To the manager at `address` (of its gRPC port; the door is the next one). Raises OSError or TimeoutError."""
    try:
        host, port = split_address(address)
        context = pinned(identity.root_cert_pem)
    except (InvalidArgument, ValueError) as error:
        raise ConnectionError(f"no lane can be opened to {address}: {error}") from error
    return await open_lane(host, port + 1, context, role_name(NodeRole.MANAGER), ticket)

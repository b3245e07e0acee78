"""How a new manager gets into Raft: it asks any manager it knows, which asks the leader, until it is let in.

Its own server listens before it asks, since the leader calls back at once. Being let in makes it a learner; the log
comes from the leader, which makes it a voter when it has caught up. Until the log has told it who the members are, it
answers them at the addresses that came with the admission.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping

import grpc

from pyswarm.v1 import ca_pb2, ca_pb2_grpc
from pyswarm_common.errors import OutOfSequence, Unavailable, Unknown
from pyswarm_common.identity import role_name
from pyswarm_common.model import NodeRole
from pyswarm_common.rpc import error_from_rpc, open_channel
from pyswarm_manager.api.ports import IdentityProvider
from pyswarm_manager.config import ManagerConfig
from pyswarm_manager.raft.transport import GrpcTransport

_log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 15.0
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 2.0


class IntroducedTransport(GrpcTransport):
    """Also reaches members that the configuration does not name yet."""

    _configured: Mapping[int, str] = {}
    _introduced: Mapping[int, str] = {}

    def set_peers(self, peers: Mapping[int, str]) -> None:
        """The other members, by the configuration."""
        self._configured = peers
        super().set_peers({**self._introduced, **peers})

    def introduce(self, members: Mapping[int, str]) -> None:
        """Members as they were at the admission; nobody, once the configuration is known."""
        self._introduced = members
        self.set_peers(self._configured)


async def join_raft(config: ManagerConfig, identity: IdentityProvider) -> dict[int, str]:
    """The other members, once this manager is one. Raises the refusal if asking again would not help."""
    backoff_s = FIRST_BACKOFF_S
    for address in itertools.cycle(config.join_addresses):
        try:
            members = await _ask(address, config, identity)
        except (Unavailable, Unknown, OutOfSequence) as error:
            _log.info("joining at %s: %s", address, error)
        else:
            _log.info("let into raft at %s", address)
            return members
        await asyncio.sleep(backoff_s)
        backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
    raise AssertionError("a manager that joins has an address to ask")


async def _ask(address: str, config: ManagerConfig, identity: IdentityProvider) -> dict[int, str]:
    channel = open_channel(address, identity(), role_name(NodeRole.MANAGER))
    request = ca_pb2.JoinRaftRequest(raft_id=config.raft_id, address=config.advertise_address)
    try:
        response = await ca_pb2_grpc.CAStub(channel).JoinRaft(request, timeout=CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from error
    finally:
        await channel.close(None)
    return {raft_id: member for raft_id, member in response.members.items() if raft_id != config.raft_id}

"""How a new manager gets into Raft: it asks any manager it knows, which asks the leader, until it is let in.

Its own server listens before it asks, since the leader calls back at once. Being let in makes it a learner; the log
comes from the leader, which makes it a voter when it has caught up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

import grpc

from pyswarm.v1 import ca_pb2, ca_pb2_grpc
from pyswarm_common.errors import OutOfSequence, Unavailable, Unknown
from pyswarm_common.identity import role_name
from pyswarm_common.model import NodeRole
from pyswarm_common.resolving import resolved
from pyswarm_common.rpc import error_from_rpc, open_channel
from pyswarm_manager.config import ManagerConfig
from pyswarm_manager.ports import IdentityProvider
from pyswarm_manager.raft.core.types import LogLost
from pyswarm_manager.raft.driver import RaftNode

_log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 4.0
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 2.0


async def join_raft(current: Callable[[], ManagerConfig], identity: IdentityProvider, raft: RaftNode) -> None:
    """Return once this manager is a member. Raises the refusal if asking again would not help, and LogLost if this
    raft id was a voter's before, or was removed. `current`: whom to ask may change meanwhile, managers come and go."""
    backoff_s = FIRST_BACKOFF_S
    for named in _in_turns(current):
        config = current()
        address = next(iter(await resolved(named)), named)
        try:
            answer = await _ask(address, config, identity, raft.last_index)
        except (Unavailable, Unknown, OutOfSequence) as error:
            _log.info("joining at %s: %s", address, error)
        else:
            if answer.needs_new_raft_id and config.raft_id not in raft.members:
                raise LogLost(f"by the leader at {address} this manager was removed, or it voted and its log is empty")
            _log.info("let into raft at %s", address)
            return
        if config.raft_id in raft.members:
            return
        await asyncio.sleep(backoff_s)
        backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)


def _in_turns(current: Callable[[], ManagerConfig]) -> Iterator[str]:
    while True:
        yield from current().join_addresses


async def _ask(
    address: str, config: ManagerConfig, identity: IdentityProvider, last_index: int
) -> ca_pb2.JoinRaftResponse:
    channel = open_channel(address, identity(), role_name(NodeRole.MANAGER))
    request = ca_pb2.JoinRaftRequest(raft_id=config.raft_id, address=config.advertise_address, last_index=last_index)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await channel.channel_ready()
        return await ca_pb2_grpc.CAStub(channel).JoinRaft(request, timeout=CALL_TIMEOUT_S)
    except TimeoutError:
        raise Unavailable(f"no manager answers at {address}") from None
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from error
    finally:
        await channel.close(None)

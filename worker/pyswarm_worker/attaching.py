"""How this node asks the managers for a plain container's place on a network. Only asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import grpc

from pyswarm.v1 import attachments_pb2, attachments_pb2_grpc
from pyswarm_common.errors import PyswarmError, Unavailable
from pyswarm_common.identity import NodeIdentity, role_name
from pyswarm_common.model import NodeRole
from pyswarm_common.resolving import resolved
from pyswarm_common.rpc import error_from_rpc, open_channel

_ANSWER_TIMEOUT_S = 20.0
_MOST_ASKED = 5

AskPlace = Callable[[attachments_pb2.AttachRequest], Awaitable[attachments_pb2.AttachResponse]]
"""Raises Unavailable while no manager answers, and otherwise what they refuse."""


def asker(identity: Callable[[], NodeIdentity], managers: Callable[[], Sequence[str]]) -> AskPlace:
    """Asks one manager after the other; `managers` names the likeliest first."""

    async def ask(request: attachments_pb2.AttachRequest) -> attachments_pb2.AttachResponse:
        last: PyswarmError = Unavailable("no manager is reachable: try again once this node has a session with one")
        for named in list(dict.fromkeys(managers()))[:_MOST_ASKED]:
            for address in await resolved(named):
                try:
                    return await _ask(address, identity(), request)
                except Unavailable as error:
                    last = error
        raise last

    return ask


async def _ask(
    address: str, identity: NodeIdentity, request: attachments_pb2.AttachRequest
) -> attachments_pb2.AttachResponse:
    async with open_channel(address, identity, role_name(NodeRole.MANAGER)) as channel:
        try:
            return await attachments_pb2_grpc.AttachmentsStub(channel).Attach(request, timeout=_ANSWER_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error

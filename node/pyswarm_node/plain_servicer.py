"""Networks of this machine's plain containers on the local socket. Decides nothing: the agent keeps them."""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pyswarm.v1 import plain_pb2 as pb
from pyswarm.v1 import plain_pb2_grpc
from pyswarm_common.addresses import plain_address
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.rpc import Caller, Table
from pyswarm_worker.core.plain import Place, PlainRecord, Wanted
from pyswarm_worker.plain import PlainContainers

from .addresses import is_ip

_MAX_NETWORKS = 32

PLAIN_TABLE: Final[Table] = dict.fromkeys(
    (f"/pyswarm.v1.PlainNetworks/{name}Plain" for name in ("Attach", "Detach", "Connect", "Disconnect", "List")),
    frozenset({Caller.LOCAL}),
)


class PlainServicer(plain_pb2_grpc.PlainNetworksServicer):
    """Serves PlainNetworks."""

    def __init__(self, containers: Callable[[], PlainContainers]) -> None:
        """`containers` raises the refusal where this machine is in no swarm."""
        self._containers = containers

    async def AttachPlain(self, request: pb.AttachPlainRequest, context: Any) -> pb.AttachPlainResponse:
        if len(request.networks) > _MAX_NETWORKS:
            raise InvalidArgument(f"a container is on {_MAX_NETWORKS} networks at most")
        networks = [_wanted(network) for network in request.networks]
        servers = tuple(_address(server, "DNS server") for server in request.dns)
        name = request.container_name or request.container_id
        record, path = await self._containers().attach(request.container_id, name, networks, servers)
        return pb.AttachPlainResponse(container=_container(record, path))

    async def DetachPlain(self, request: pb.DetachPlainRequest, context: Any) -> pb.DetachPlainResponse:
        await self._containers().detach(request.container)
        return pb.DetachPlainResponse()

    async def ConnectPlain(self, request: pb.ConnectPlainRequest, context: Any) -> pb.ConnectPlainResponse:
        place = await self._containers().connect(request.container, _wanted(request.network))
        return pb.ConnectPlainResponse(place=_place(place))

    async def DisconnectPlain(self, request: pb.DisconnectPlainRequest, context: Any) -> pb.DisconnectPlainResponse:
        await self._containers().disconnect(request.container, request.network, force=request.force)
        return pb.DisconnectPlainResponse()

    async def ListPlain(self, request: pb.ListPlainRequest, context: Any) -> pb.ListPlainResponse:
        return pb.ListPlainResponse(containers=[_container(record, path) for record, path in self._containers().list()])


def _wanted(network: pb.PlainNetwork) -> Wanted:
    if not network.network:
        raise InvalidArgument("say which network")
    addresses = [_address(text, "IP address") for text in (network.ip, network.ip6) if text]
    if network.ip and ":" in network.ip:
        raise InvalidArgument(f"invalid IPv4 address: {network.ip[:64]}")
    if network.ip6 and ":" not in network.ip6:
        raise InvalidArgument(f"invalid IPv6 address: {network.ip6[:64]}")
    return Wanted(network=network.network, aliases=tuple(network.aliases), addresses=tuple(addresses))


def _address(text: str, what: str) -> str:
    if not is_ip(text):
        raise InvalidArgument(f"invalid {what}: {text[:64]!r}")
    return plain_address(text)


def _container(record: PlainRecord, path: str) -> pb.PlainContainer:
    return pb.PlainContainer(
        container_id=record.container_id,
        container_name=record.name,
        netns_path=path,
        places=[_place(place) for place in record.places],
    )


def _place(place: Place) -> pb.PlainPlace:
    return pb.PlainPlace(
        network_id=place.network_id,
        network_name=place.network_name,
        aliases=place.aliases,
        addresses=place.addresses,
        interface=place.interface,
        task_id=place.task_id,
    )

"""Writes of networks, on the leader. The planner acts next: it gives a network its identifier and subnets."""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm.v1 import control_pb2
from pyswarm_common.errors import AlreadyExists, FailedPrecondition
from pyswarm_common.model import Network, NetworkSpec
from pyswarm_manager.api.validate import check_network_spec, decode, refuse
from pyswarm_manager.api.validate.network import OVERLAY, PREDEFINED
from pyswarm_manager.planner.allocate.subnets import check_subnets
from pyswarm_manager.store.changes import Create, delete
from pyswarm_manager.store.lookup import find_network
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.writes import Writer, retried


async def create_network(writer: Writer, request: control_pb2.CreateNetworkRequest) -> Network:
    spec = decode(NetworkSpec, request.spec)
    refuse(check_network_spec(spec))
    spec = replace(spec, driver=spec.driver or OVERLAY)
    check_against_others(writer.store.view, spec)
    network = Network(id=writer.ids(), spec=spec)
    await writer.store.propose([Create(network)])
    return writer.store.view.networks.get(network.id, network)


async def remove_network(writer: Writer, request: control_pb2.RemoveNetworkRequest) -> str:
    async def attempt() -> str:
        network = find_network(writer.store.view, request.network)
        if network.spec.ingress:
            raise FailedPrecondition(
                f"network {network.spec.name} carries the published ports of the whole swarm and cannot be removed"
            )
        await writer.store.propose([delete(network)])
        return network.id

    return await retried(attempt)


def check_against_others(view: Tables, spec: NetworkSpec) -> None:
    """Refuse a name, a role or a subnet that is taken."""
    if spec.name in PREDEFINED:
        raise AlreadyExists(f"network with name {spec.name} already exists on every host: choose another name")
    for other in view.networks.values():
        if spec.ingress and other.spec.ingress:
            raise AlreadyExists(f"ingress network ({other.id}) is already present")
        if other.spec.name == spec.name:
            raise AlreadyExists(f"network with name {spec.name} already exists")
    check_subnets(spec, view.networks.values())

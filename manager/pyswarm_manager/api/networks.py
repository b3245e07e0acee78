"""Writes of networks, on the leader. The planner acts next: it gives a network its identifier and subnets."""

from __future__ import annotations

from ipaddress import ip_address

from msgspec.structs import replace

from pyswarm.v1 import control_pb2
from pyswarm_common.errors import AlreadyExists
from pyswarm_common.model import Network, NetworkSpec
from pyswarm_manager.api.validate import check_network_spec, decode, refuse
from pyswarm_manager.api.validate.driver import check_plugins
from pyswarm_manager.api.validate.network import OVERLAY, PREDEFINED
from pyswarm_manager.planner.allocate.subnets import check_subnets
from pyswarm_manager.store.changes import Create, delete
from pyswarm_manager.store.lookup import find_network
from pyswarm_manager.store.network_claims import is_overlay
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.writes import Writer, retried


async def create_network(writer: Writer, request: control_pb2.CreateNetworkRequest) -> Network:
    spec = decode(NetworkSpec, request.spec)
    refuse(check_network_spec(spec))
    spec = normalised(replace(spec, driver=spec.driver or OVERLAY))
    check_plugins(spec, writer.store.view.nodes.values())
    check_against_others(writer.store.view, spec)
    network = Network(id=writer.ids(), spec=spec)
    await writer.store.propose([Create(network)])
    return writer.store.view.networks.get(network.id, network)


async def remove_network(writer: Writer, request: control_pb2.RemoveNetworkRequest) -> str:
    async def attempt() -> str:
        network = find_network(writer.store.view, request.network)
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
    if is_overlay(spec):
        check_subnets(spec, view.networks.values(), view.nodes.values())


def normalised(spec: NetworkSpec) -> NetworkSpec:
    """Addresses in the one way to write them, since they are compared as text."""
    named = {name: str(ip_address(text)) for name, text in spec.auxiliary_addresses.items()}
    gateways = tuple(str(ip_address(text)) if text else "" for text in spec.gateways)
    return replace(spec, auxiliary_addresses=named, gateways=gateways)

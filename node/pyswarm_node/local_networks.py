"""This machine's own networks on the local socket: the predefined ones, and configuration-only ones on its disk.

Decides what a configuration may say; the overlay reads it when a network of the cluster names it (`config_from`).
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from pyswarm.v1 import localnet_pb2, localnet_pb2_grpc
from pyswarm_common.codec import to_proto
from pyswarm_common.errors import AlreadyExists, Forbidden
from pyswarm_common.model import Meta, Network, NetworkSpec
from pyswarm_common.network_options import BRIDGE, HOST, NONE, problems
from pyswarm_common.rpc import Caller, Table
from pyswarm_manager.api.validate import decode, refuse
from pyswarm_manager.api.validate.addressing import check_addressing
from pyswarm_manager.api.validate.fields import Violation, check_labels, check_name
from pyswarm_overlay.drivers.configs import ConfigNetwork, Configs

LOCAL_NETWORKS_TABLE: Final[Table] = dict.fromkeys(
    (f"/pyswarm.v1.LocalNetworks/{name}" for name in ("CreateLocalNetwork", "ListLocalNetworks", "RemoveLocalNetwork")),
    frozenset({Caller.LOCAL}),
)
NULL = "null"
"""Docker's name for the driver of networks that have none."""
_PREDEFINED = {BRIDGE: BRIDGE, HOST: HOST, NONE: NULL}
_NOT_OF_ONE_NODE = (
    "configuration network can only contain network specific fields. Network operator fields like "
    "[ ingress | internal | attachable | scope ] are not supported."
)


class LocalNetworksServicer(localnet_pb2_grpc.LocalNetworksServicer):
    """Serves LocalNetworks. `new_id` makes an id as every other object has."""

    def __init__(self, directory: Path, new_id: Callable[[], str], clock: Callable[[], float] = time.time) -> None:
        self._configs = Configs(directory)
        self._new_id = new_id
        self._clock = clock

    async def CreateLocalNetwork(
        self, request: localnet_pb2.CreateLocalNetworkRequest, context: Any
    ) -> localnet_pb2.CreateLocalNetworkResponse:
        spec = decode(NetworkSpec, request.spec)
        refuse(_violations(spec))
        if spec.ingress or spec.internal or spec.attachable:
            raise Forbidden(_NOT_OF_ONE_NODE)
        if spec.name in _PREDEFINED:
            raise AlreadyExists(f"network with name {spec.name} already exists")
        config = _config(spec, self._new_id(), self._clock())
        self._configs.add(config)
        return localnet_pb2.CreateLocalNetworkResponse(network=to_proto(network_of(config)))

    async def ListLocalNetworks(
        self, request: localnet_pb2.ListLocalNetworksRequest, context: Any
    ) -> localnet_pb2.ListLocalNetworksResponse:
        found = [*predefined(), *(network_of(config) for config in self._configs.all())]
        found.sort(key=lambda network: network.spec.name)
        return localnet_pb2.ListLocalNetworksResponse(networks=[to_proto(network) for network in found])

    async def RemoveLocalNetwork(
        self, request: localnet_pb2.RemoveLocalNetworkRequest, context: Any
    ) -> localnet_pb2.RemoveLocalNetworkResponse:
        if request.network in _PREDEFINED:
            raise Forbidden(f"{request.network} is a pre-defined network and cannot be removed")
        return localnet_pb2.RemoveLocalNetworkResponse(network_id=self._configs.remove(request.network).config_id)


def predefined() -> list[Network]:
    """Their ids are the same on every machine: there is nothing to tell apart."""
    return [
        Network(id=hashlib.blake2s(name.encode()).hexdigest()[:25], spec=NetworkSpec(name=name, driver=driver))
        for name, driver in _PREDEFINED.items()
    ]


def network_of(config: ConfigNetwork) -> Network:
    spec = NetworkSpec(
        name=config.name,
        labels=config.labels,
        driver=NULL,
        subnets=config.subnets,
        gateways=config.gateways,
        options=config.options,
        ipv6=config.ipv6,
        ip_ranges=config.ip_ranges,
        auxiliary_addresses=config.auxiliary_addresses,
        ipam_driver=config.ipam_driver,
        ipam_options=config.ipam_options,
        config_only=True,
    )
    meta = Meta(created_at=config.created_at, updated_at=config.created_at)
    return Network(id=config.config_id, meta=meta, spec=spec, subnets=config.subnets, gateways=config.gateways)


def _violations(spec: NetworkSpec) -> Iterator[Violation]:
    yield from check_name(spec.name)
    yield from check_labels(spec.labels)
    yield from check_addressing(spec)
    if not spec.config_only or spec.config_from:
        yield "config_only", "networks of one machine are configuration-only ones: create it with --config-only"
    for sentence in problems(spec.driver, spec.options, config_only=True):
        yield "options", sentence


def _config(spec: NetworkSpec, config_id: str, now: float) -> ConfigNetwork:
    return ConfigNetwork(
        config_id=config_id,
        name=spec.name,
        labels=spec.labels,
        options=spec.options,
        subnets=spec.subnets,
        gateways=spec.gateways,
        ip_ranges=spec.ip_ranges,
        auxiliary_addresses=spec.auxiliary_addresses,
        ipam_driver=spec.ipam_driver,
        ipam_options=spec.ipam_options,
        ipv6=spec.ipv6,
        created_at=now,
    )

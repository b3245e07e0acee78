"""The managers' network tables in the overlay's words, and what published ports lead to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm.v1 import types_pb2
from pyswarm_common.model import Protocol
from pyswarm_overlay import types as overlay

from .assembly import PROTOCOLS

_ENDPOINT_MODES: dict[int, overlay.EndpointMode] = {
    types_pb2.ENDPOINT_MODE_VIP: "vip",
    types_pb2.ENDPOINT_MODE_DNSRR: "dnsrr",
}
_AFFINITIES: dict[int, overlay.SessionAffinity] = {types_pb2.SESSION_AFFINITY_CLIENT_IP: "client_ip"}
_POLICIES: dict[int, overlay.IngressPolicy] = {types_pb2.INGRESS_POLICY_LOCAL: "local"}


@dataclass(slots=True)
class KnownTable:
    """One network as this node was told it, in the messages it came in (so that it is kept on disk as it is)."""

    network: types_pb2.Network
    version: int
    endpoints: dict[str, pb.EndpointRecord]
    services: dict[str, pb.ServiceRecord]

    @classmethod
    def of(cls, table: pb.NetworkTable) -> KnownTable:
        return cls(
            network=table.network,
            version=table.version,
            endpoints={record.endpoint_id: record for record in table.endpoints},
            services={record.service_id: record for record in table.services},
        )

    def apply(self, delta: pb.NetworkTable) -> bool:
        """Take the increment in; False when it does not start at our version."""
        if delta.from_version != self.version:
            return False
        for endpoint_id in delta.remove_endpoint_ids:
            self.endpoints.pop(endpoint_id, None)
        for service_id in delta.remove_service_ids:
            self.services.pop(service_id, None)
        self.endpoints.update((record.endpoint_id, record) for record in delta.endpoints)
        self.services.update((record.service_id, record) for record in delta.services)
        self.version = delta.version
        return True

    def is_found_by_name(self, service_id: str) -> bool:
        """Whether clients find the service's tasks by their own addresses: also where each node gives those, since no
        virtual one could lead to them."""
        record = self.services.get(service_id)
        if record is None or self.network.spec.ingress:
            return False
        return record.endpoint_mode == types_pb2.ENDPOINT_MODE_DNSRR or not record.vips

    def to_overlay(self) -> overlay.NetworkTable:
        network = self.network
        return overlay.NetworkTable(
            network_id=network.id,
            name=network.spec.name,
            vni=network.vni,
            subnets=tuple(network.subnets),
            gateways=tuple(network.gateways),
            mtu=_mtu(network),
            internal=network.spec.internal,
            ingress=network.spec.ingress,
            driver=network.spec.driver or "overlay",
            options=dict(network.spec.options),
            config_from=network.spec.config_from,
            ip_ranges=tuple(network.spec.ip_ranges),
            auxiliary_addresses=dict(network.spec.auxiliary_addresses),
            ipam_driver=network.spec.ipam_driver,
            ipam_options=dict(network.spec.ipam_options),
            version=self.version,
            endpoints=tuple(endpoint(record) for record in self.endpoints.values()),
            services=tuple(service(record) for record in self.services.values()),
        )


def delta_to_overlay(delta: pb.NetworkTable) -> overlay.TableDelta:
    return overlay.TableDelta(
        network_id=delta.network_id,
        from_version=delta.from_version,
        version=delta.version,
        upsert_endpoints=tuple(endpoint(record) for record in delta.endpoints),
        remove_endpoints=tuple(delta.remove_endpoint_ids),
        upsert_services=tuple(service(record) for record in delta.services),
        remove_services=tuple(delta.remove_service_ids),
    )


def endpoint(record: pb.EndpointRecord) -> overlay.EndpointRecord:
    return overlay.EndpointRecord(
        endpoint_id=record.endpoint_id,
        name=record.name,
        hostname=record.hostname,
        addresses=tuple(record.addresses),
        node_address=record.node_address,
        service_id=record.service_id or None,
        ready=record.ready,
        aliases=tuple(record.aliases),
        slot=record.slot,
    )


def service(record: pb.ServiceRecord) -> overlay.ServiceRecord:
    return overlay.ServiceRecord(
        service_id=record.service_id,
        name=record.name,
        aliases=tuple(record.aliases),
        vips=tuple(record.vips),
        endpoint_mode=_ENDPOINT_MODES.get(record.endpoint_mode, "vip"),
        session_affinity=_AFFINITIES.get(record.session_affinity, "none"),
        allow_from=tuple(record.allow_from),
        ports=tuple(
            overlay.ServicePort(name=port.name, protocol=PROTOCOLS[Protocol(port.protocol)], target=port.target_port)
            for port in record.ports
        ),
    )


def ingress_ports(
    ports: Iterable[pb.IngressPort], endpoints: Mapping[str, pb.EndpointRecord]
) -> tuple[overlay.IngressPort, ...]:
    """Each published port with the ready endpoints of its service on the ingress network."""
    backends: dict[str, list[overlay.IngressBackend]] = {}
    for record in endpoints.values():
        if record.ready and record.service_id and record.addresses:
            backends.setdefault(record.service_id, []).append(
                overlay.IngressBackend(
                    endpoint_id=record.endpoint_id,
                    ingress_addresses=tuple(record.addresses),
                    node_address=record.node_address,
                )
            )
    return tuple(
        overlay.IngressPort(
            protocol=PROTOCOLS[Protocol(port.protocol)],
            published_port=port.published_port,
            target_port=port.target_port,
            service_id=port.service_id,
            policy=_POLICIES.get(port.policy, "spread"),
            host_ip=port.host_ip,
            proxy_protocol=port.proxy_protocol,
            session_affinity=_AFFINITIES.get(port.session_affinity, "none"),
            backends=tuple(sorted(backends.get(port.service_id, []), key=lambda backend: backend.endpoint_id)),
        )
        for port in ports
    )


def _mtu(network: types_pb2.Network) -> int | None:
    text = network.spec.options.get("com.docker.network.driver.mtu", "")
    return int(text) if text.isdigit() else None

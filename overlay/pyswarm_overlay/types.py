"""The plain values that callers hand in: tables of a network, sandboxes, published ports.

Nothing here decides. Managers (through the agent) fill these in; `OverlayHost` turns them into kernel state. They are
`msgspec.Struct`s so that the last ones can be kept on disk and read back by a restarted daemon. Addresses are tuples
everywhere, so that a second family needs no new field.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

Protocol = Literal["tcp", "udp", "sctp"]
EndpointMode = Literal["vip", "dnsrr"]
IngressPolicy = Literal["spread", "local"]
SessionAffinity = Literal["none", "client_ip"]


class OverlayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where this host keeps its things and how it is reached by its peers."""

    run_dir: Path
    state_dir: Path
    node_address: str
    """The underlay address: the local end of every VXLAN tunnel."""
    data_path_port: int = 4789
    gwbridge_subnet: str = "172.18.0.0/16"
    """Of the sandboxes' ways out; another private one is taken where this host already routes it."""
    gwbridge_subnet6: str = "fd70:7973:7761:726d::/64"
    """Likewise; empty: the ways out have no IPv6."""
    prefix: str = "ps"
    """Begins the name of every interface and nft table we make, and so marks what we may remove."""
    plugin_sockets: Path = Path("/run/docker/plugins")
    plugin_specs: tuple[Path, ...] = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))
    """Where Docker's plugins are found."""
    upstream_dns: tuple[str, ...] | None = None
    """Resolvers for names that are not ours; None: those of the host's /etc/resolv.conf."""
    names_linger_s: float = 86400.0
    """How long names are answered without a daemon."""


class EndpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One task (or one node, on the ingress network) on a network."""

    endpoint_id: str
    name: str
    hostname: str = ""
    addresses: tuple[str, ...] = ()
    mac: str | None = None
    node_address: str
    service_id: str | None = None
    ready: bool = False
    """May be a backend of its service's VIP and appear in `tasks.<service>`."""
    aliases: tuple[str, ...] = ()
    slot: int = 0
    """Replica index from 1: its name is `<slot>.<service>`; 0 where there is none."""


class ServicePort(msgspec.Struct, frozen=True, kw_only=True):
    """A port that a service's tasks listen on; clients may ask for it by SRV."""

    name: str = ""
    protocol: Protocol = "tcp"
    target: int


class ServiceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One service's names and virtual addresses on a network."""

    service_id: str
    name: str
    aliases: tuple[str, ...] = ()
    vips: tuple[str, ...] = ()
    endpoint_mode: EndpointMode = "vip"
    session_affinity: SessionAffinity = "none"
    allow_from: tuple[str, ...] = ()
    """Services whose tasks may open connections to this one's, by name; "ingress"; "none" alone. Empty: everybody."""
    ports: tuple[ServicePort, ...] = ()


class NetworkTable(msgspec.Struct, frozen=True, kw_only=True):
    """The whole state of one network, as the managers know it at `version`."""

    network_id: str
    name: str
    vni: int
    subnets: tuple[str, ...]
    gateways: tuple[str, ...] = ()
    mtu: int | None = None
    internal: bool = False
    ingress: bool = False
    driver: str = "overlay"
    options: dict[str, str] = {}
    """Of the driver, as the user gave them."""
    config_from: str = ""
    """The configuration-only network of each node that says what this one is there."""
    ip_ranges: tuple[str, ...] = ()
    auxiliary_addresses: dict[str, str] = {}
    ipam_driver: str = ""
    ipam_options: dict[str, str] = {}
    version: int = 0
    endpoints: tuple[EndpointRecord, ...] = ()
    services: tuple[ServiceRecord, ...] = ()


class TableDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What changed on one network between two versions."""

    network_id: str
    from_version: int
    version: int
    upsert_endpoints: tuple[EndpointRecord, ...] = ()
    remove_endpoints: tuple[str, ...] = ()
    upsert_services: tuple[ServiceRecord, ...] = ()
    remove_services: tuple[str, ...] = ()


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox's place on one network. `addresses` carry their prefix length: "10.0.1.5/24"."""

    network_id: str
    endpoint_id: str
    addresses: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    interface: str = ""
    """Its name in the sandbox; empty: by its place among the others, which a change of them may change."""


class HostPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port of this host that belongs to one sandbox (`mode=host`)."""

    protocol: Protocol = "tcp"
    published: int
    target: int
    host_ip: str = ""
    proxy_protocol: bool = False


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """One container's network namespace, as wanted."""

    sandbox_id: str
    hostname: str = ""
    attachments: tuple[Attachment, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    egress: bool = True
    """Has a way out: an interface on the gateway bridge and the default route."""
    dns: tuple[str, ...] = ()
    """Who is asked for names that are not ours; empty: the host's own servers."""
    egress_interface: str = ""
    """The name of that interface; empty: the one after the last network's."""
    service_id: str = ""
    """Whose policy holds for it; empty: that of the service which the tables name for its endpoints."""


class IngressBackend(msgspec.Struct, frozen=True, kw_only=True):
    """One task behind an ingress port, with its addresses on the ingress network."""

    endpoint_id: str
    ingress_addresses: tuple[str, ...]
    node_address: str


class IngressPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port that every node answers on (`mode=ingress`)."""

    protocol: Protocol = "tcp"
    published_port: int
    target_port: int
    service_id: str
    backends: tuple[IngressBackend, ...] = ()
    policy: IngressPolicy = "spread"
    host_ip: str = ""
    """The node's address to listen on; empty: all of both families."""
    proxy_protocol: bool = False
    session_affinity: SessionAffinity = "none"

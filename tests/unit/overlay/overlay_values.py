"""Tables that several overlay tests use."""

from __future__ import annotations

from typing import Any

from pyswarm_overlay import EndpointRecord, NetworkTable, ServiceRecord

HERE, THERE = "192.0.2.1", "192.0.2.2"


def endpoint(number: int, **changes: Any) -> EndpointRecord:
    settings: dict[str, Any] = {
        "endpoint_id": f"t{number}",
        "name": f"web.{number}",
        "hostname": f"host{number}",
        "addresses": (f"10.0.1.{number}",),
        "node_address": HERE,
        "service_id": "s1",
        "ready": True,
    }
    return EndpointRecord(**{**settings, **changes})


def service(**changes: Any) -> ServiceRecord:
    settings: dict[str, Any] = {"service_id": "s1", "name": "web", "vips": ("10.0.1.2",)}
    return ServiceRecord(**{**settings, **changes})


def table(*endpoints: EndpointRecord, **changes: Any) -> NetworkTable:
    settings: dict[str, Any] = {
        "network_id": "n1",
        "name": "front",
        "vni": 4097,
        "subnets": ("10.0.1.0/24",),
        "version": 1,
        "endpoints": endpoints,
        "services": (service(),),
    }
    return NetworkTable(**{**settings, **changes})

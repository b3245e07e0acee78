"""Rows of `service ls`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyswarm_cli.output.rows import Columns, Row
from pyswarm_cli.output.words import short_id
from pyswarm_common.model import Protocol, PublishMode, ServiceMode

COLUMNS = Columns(
    headings={
        "ID": "ID",
        "Name": "NAME",
        "Mode": "MODE",
        "Replicas": "REPLICAS",
        "Image": "IMAGE",
        "Ports": "PORTS",
    },
    table=("ID", "Name", "Mode", "Replicas", "Image", "Ports"),
)


def row(service: Any, counts: Any, *, no_trunc: bool = False) -> Row:
    """One line of `service ls`."""
    spec = service.spec
    return {
        "ID": service.id if no_trunc else short_id(service.id),
        "Name": spec.name,
        "Mode": ServiceMode(spec.mode).name.lower(),
        "Replicas": _replicas(spec, counts),
        "Image": spec.task.container.image,
        "Ports": ports(service.endpoint.ports or spec.endpoint.ports, PublishMode.INGRESS),
    }


def _replicas(spec: Any, counts: Any) -> str:
    text = f"{counts.running}/{counts.desired}"
    most = spec.task.placement.max_replicas_per_node
    text = f"{text} (max {most} per node)" if most else text
    return f"{text} (stopped)" if spec.stopped else text


def ports(configs: Iterable[Any], mode: PublishMode) -> str:
    """ "*:8080->80/tcp" of the ports published in that mode."""
    chosen = sorted(
        (port for port in configs if port.publish_mode == mode and port.published_port),
        key=lambda port: (port.published_port, port.protocol),
    )
    return ", ".join(
        f"*:{port.published_port}->{port.target_port}/{Protocol(port.protocol).name.lower()}" for port in chosen
    )

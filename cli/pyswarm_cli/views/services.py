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
        "Mode": ServiceMode(spec.mode).name.lower().replace("_", " "),
        "Replicas": _replicas(service, counts),
        "Image": spec.task.container.image,
        "Ports": ports(service.endpoint.ports or spec.endpoint.ports, PublishMode.INGRESS),
    }


def _replicas(service: Any, counts: Any) -> str:
    """ "2/3", of jobs "0/3 (2/5 completed)"."""
    spec = service.spec
    text = f"{counts.running}/{counts.desired}"
    if ServiceMode(spec.mode).is_job:
        return f"{text} ({counts.completed}/{_completions(spec, counts)} completed)"
    if spec.HasField("autoscale"):
        return f"{text} (autoscale {spec.autoscale.min_replicas}-{spec.autoscale.max_replicas})"
    most = spec.task.placement.max_replicas_per_node
    text = f"{text} (max {most} per node)" if most else text
    return f"{text} (stopped)" if spec.stopped else text


def _completions(spec: Any, counts: Any) -> int:
    if spec.mode == ServiceMode.GLOBAL_JOB:
        return int(counts.desired + counts.completed)
    job = spec.job
    if job.HasField("total_completions"):
        return int(job.total_completions)
    return int(job.max_concurrent) if job.HasField("max_concurrent") else 1


def ports(configs: Iterable[Any], mode: PublishMode) -> str:
    """ "*:8080->80/tcp" of the ports published in that mode; one at a single address begins with that."""
    chosen = sorted(
        (port for port in configs if port.publish_mode == mode and port.published_port),
        key=lambda port: (port.published_port, port.protocol),
    )
    return ", ".join(
        f"{_where(port.host_ip)}:{port.published_port}->{port.target_port}/{Protocol(port.protocol).name.lower()}"
        for port in chosen
    )


def _where(host_ip: str) -> str:
    return f"[{host_ip}]" if ":" in host_ip else host_ip or "*"

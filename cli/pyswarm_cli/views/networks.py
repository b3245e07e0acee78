"""Rows of `network ls`. Pure."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.output.rows import Columns, Row
from pyswarm_cli.output.words import iso_time, short_id
from pyswarm_common.codec import timestamp

COLUMNS = Columns(
    headings={
        "ID": "NETWORK ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "Internal": "INTERNAL",
        "Ingress": "INGRESS",
        "CreatedAt": "CREATED AT",
        "Labels": "LABELS",
    },
    table=("ID", "Name", "Driver", "Scope"),
)


def row(network: Any, *, no_trunc: bool = False) -> Row:
    """One line of `network ls`."""
    spec = network.spec
    return {
        "ID": network.id if no_trunc else short_id(network.id),
        "Name": spec.name,
        "Driver": spec.driver or "overlay",
        "Scope": "swarm",
        "Internal": spec.internal,
        "Ingress": spec.ingress,
        "CreatedAt": iso_time(timestamp(network.meta.created_at)),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(spec.labels.items())),
    }

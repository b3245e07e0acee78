"""Secrets and configs as people see them: rows and JSON in docker's shape. Pure; a secret's data is never there."""

from __future__ import annotations

import base64
from typing import Any

from pyswarm_cli.output.rows import Columns, Row
from pyswarm_cli.output.words import ago, iso_time
from pyswarm_common.codec import timestamp

COLUMNS = Columns(
    headings={
        "ID": "ID",
        "Name": "NAME",
        "Number": "VERSION",
        "Driver": "DRIVER",
        "CreatedAt": "CREATED",
        "UpdatedAt": "UPDATED",
        "Labels": "LABELS",
    },
    table=("ID", "Name", "Number", "CreatedAt", "UpdatedAt"),
)


def row(item: Any, now: float) -> Row:
    """One line of `secret ls` and `config ls`."""
    return {
        "ID": item.id,
        "Name": item.spec.name,
        "Number": item.number,
        "Driver": item.spec.templating,
        "CreatedAt": ago(timestamp(item.meta.created_at), now),
        "UpdatedAt": ago(timestamp(item.meta.updated_at), now),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(item.spec.labels.items())),
    }


def inspected(item: Any) -> dict[str, Any]:
    """Everything; docker's names, and `Number` and `Superseded` besides."""
    spec: dict[str, Any] = {"Name": item.spec.name, "Labels": dict(item.spec.labels)}
    if item.spec.templating:
        spec["Templating"] = {"Name": item.spec.templating}
    if item.spec.data:
        spec["Data"] = base64.b64encode(item.spec.data).decode()
    return {
        "ID": item.id,
        "Version": {"Index": item.meta.version},
        "CreatedAt": iso_time(timestamp(item.meta.created_at)),
        "UpdatedAt": iso_time(timestamp(item.meta.updated_at)),
        "Number": item.number,
        "Superseded": item.superseded,
        "Spec": spec,
    }


def pretty(item: Any) -> str:
    """For people; of a config with its data."""
    labels = [f" - {key}={value}" for key, value in sorted(item.spec.labels.items())]
    lines = [
        f"ID:\t\t{item.id}",
        f"Name:\t\t{item.spec.name}",
        f"Version:\t{item.number}" + (" (there is a later one)" if item.superseded else ""),
        "Labels:",
        *labels,
        f"Created at:\t{iso_time(timestamp(item.meta.created_at))}",
        f"Updated at:\t{iso_time(timestamp(item.meta.updated_at))}",
    ]
    if item.spec.data:
        lines += ["Data:", item.spec.data.decode(errors="replace").rstrip("\n")]
    return "\n".join(lines) + "\n"

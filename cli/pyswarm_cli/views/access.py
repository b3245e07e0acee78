"""Rows of `token ls` and `client-cert ls`. Pure."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.output.rows import Columns, Row
from pyswarm_cli.output.words import ago, expiry, iso_time
from pyswarm_common.codec import timestamp

COLUMNS = Columns(
    headings={
        "ID": "ID",
        "Name": "NAME",
        "Role": "ROLE",
        "CreatedBy": "CREATED BY",
        "Created": "CREATED",
        "Expires": "EXPIRES",
        "CreatedAt": "CREATED AT",
        "ExpiresAt": "EXPIRES AT",
    },
    table=("ID", "Name", "Role", "CreatedBy", "Created", "Expires"),
)
ROLES = {1: "viewer", 2: "operator", 3: "admin"}


def row(credential: Any, now: float) -> Row:
    """One line."""
    created = timestamp(credential.created_at)
    expires = timestamp(credential.expires_at) if credential.HasField("expires_at") else 0.0
    return {
        "ID": credential.id,
        "Name": credential.name,
        "Role": ROLES.get(credential.role, "unknown"),
        "CreatedBy": credential.created_by,
        "Created": ago(created, now),
        "Expires": expiry(expires, now),
        "CreatedAt": iso_time(created),
        "ExpiresAt": iso_time(expires) if expires else "",
    }

"""Rows of `image ls`: one per name of an image. Pure."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.output.rows import Columns, Row
from pyswarm_cli.output.words import ago, human_size, iso_time, short_id
from pyswarm_common.codec import timestamp

COLUMNS = Columns(
    headings={
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "ID": "IMAGE ID",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
    },
    table=("Repository", "Tag", "ID", "CreatedSince", "Size"),
)


def rows(image: Any, now: float, *, no_trunc: bool = False) -> list[Row]:
    """The lines of one image."""
    created = timestamp(image.created_at) if image.HasField("created_at") else 0.0
    common = {
        "ID": image.id if no_trunc else short_id(image.id),
        "CreatedSince": ago(created, now) if created else "N/A",
        "CreatedAt": iso_time(created),
        "Size": human_size(image.size_bytes),
    }
    names = [split_reference(reference) for reference in image.references] or [("<none>", "<none>")]
    return [{"Repository": repository, "Tag": tag, **common} for repository, tag in names]


def split_reference(reference: str) -> tuple[str, str]:
    """Name and tag; a port in the registry's name is not a tag."""
    name, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:
        return reference, "<none>"
    return name, tag

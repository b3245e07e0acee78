"""Limits and reservations, from flags. Pure."""

from __future__ import annotations

from pyswarm_cli.service.parts.pieces import Options, with_given
from pyswarm_common.model import ResourceRequirements, Resources


def apply_to_resources(resources: ResourceRequirements, options: Options) -> ResourceRequirements:
    """The flags that create and update share."""
    return with_given(
        resources,
        limits=with_given(_amounts(resources.limits, options, "limit"), pids=options["limit_pids"]),
        reservations=_amounts(resources.reservations, options, "reserve"),
    )


def _amounts(amounts: Resources, options: Options, kind: str) -> Resources:
    return with_given(amounts, nano_cpus=options[f"{kind}_cpu"], memory_bytes=options[f"{kind}_memory"])

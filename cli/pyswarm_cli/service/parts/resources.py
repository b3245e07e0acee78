"""Limits and reservations, from flags. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm_cli.service.parts.pieces import Options, keyed, with_given
from pyswarm_common.model import ResourceRequirements, Resources


def apply_to_resources(resources: ResourceRequirements, options: Options) -> ResourceRequirements:
    """The flags that create and update share."""
    swappiness = options["memory_swappiness"]
    resources = with_given(resources, memory_swap_bytes=options["memory_swap"])
    if swappiness is not None:
        resources = replace(resources, memory_swappiness=None if swappiness == -1 else swappiness)
    return with_given(
        resources,
        limits=with_given(_amounts(resources.limits, options, "limit"), pids=options["limit_pids"]),
        reservations=with_given(_amounts(resources.reservations, options, "reserve"), pids=options["reserve_pids"]),
    )


def create_resources(options: Options) -> ResourceRequirements:
    """What create gives as whole lists."""
    return ResourceRequirements(reservations=Resources(generic=tuple(options["generic_resource"])))


def change_resources(resources: ResourceRequirements, options: Options) -> ResourceRequirements:
    """What update adds to lists and takes from them."""
    reserved = resources.reservations
    generic = keyed(
        reserved.generic, options["generic_resource_add"], options["generic_resource_rm"], lambda item: item.kind
    )
    return replace(resources, reservations=replace(reserved, generic=generic))


def _amounts(amounts: Resources, options: Options, kind: str) -> Resources:
    return with_given(amounts, nano_cpus=options[f"{kind}_cpu"], memory_bytes=options[f"{kind}_memory"])

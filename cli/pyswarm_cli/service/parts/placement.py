"""Where the tasks of a service may run, from flags. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm_cli.service.parts.pieces import Options, items, with_given
from pyswarm_common.model import Placement, PlacementStrategy


def create_placement(options: Options) -> Placement:
    """What create gives as whole lists."""
    return Placement(
        constraints=tuple(options["constraint"]),
        preferences=tuple(options["placement_pref"]),
        tolerations=tuple(options["toleration"]),
        affinities=tuple(options["affinity"]),
    )


def apply_to_placement(placement: Placement, options: Options) -> Placement:
    """The flags that create and update share."""
    strategy = options["strategy"]
    return with_given(
        placement,
        max_replicas_per_node=options["replicas_max_per_node"],
        strategy=None if strategy is None else PlacementStrategy[strategy.upper()],
    )


def change_placement(placement: Placement, options: Options) -> Placement:
    """What update adds to lists and takes from them."""
    return replace(
        placement,
        constraints=items(placement.constraints, options["constraint_add"], options["constraint_rm"]),
        preferences=items(placement.preferences, options["placement_pref_add"], options["placement_pref_rm"]),
        tolerations=items(placement.tolerations, options["toleration_add"], options["toleration_rm"]),
        affinities=items(placement.affinities, options["affinity_add"], options["affinity_rm"]),
    )

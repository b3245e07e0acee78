"""Who may open connections to a service's tasks, from flags. Pure.

An empty list means everybody, so taking the last source away must not empty it: "none" stays. Whoever wants everybody
says so: `--allow-from ""`, or `--allow-from-rm none`.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from pyswarm_cli.service.parts.pieces import Options, items
from pyswarm_common.model import EndpointSpec

INGRESS, NOBODY = "ingress", "none"


def apply_policy(endpoint: EndpointSpec, options: Options) -> EndpointSpec:
    """The flag that create and update share: the whole list."""
    given = options["allow_from"]
    if not given:
        return endpoint
    return replace(endpoint, allow_from=tuple(dict.fromkeys(name for name in given if name)))


def change_policy(endpoint: EndpointSpec, options: Options) -> EndpointSpec:
    """What update adds and removes."""
    add, remove = options["allow_from_add"], options["allow_from_rm"]
    if not add and not remove:
        return endpoint
    have = endpoint.allow_from
    kept = [name for name in have if name != NOBODY or not add]
    changed = items(kept, add, remove)
    if not changed and have and NOBODY not in remove:
        changed = (NOBODY,)
    return replace(endpoint, allow_from=changed)


def unknown_sources(allow_from: Collection[str], own: str, known: Collection[str]) -> list[str]:
    """The names that no service has."""
    return [name for name in allow_from if name not in known and name not in (INGRESS, NOBODY, own)]

"""What may be said of where tasks run: constraints, preferences, tolerations, affinities, generic resources, taints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pyswarm_common.model import Affinity, GenericResource, Placement, ServiceMode, Taint, Toleration
from pyswarm_manager.api.validate.constraints import check_constraint
from pyswarm_manager.api.validate.fields import Violation, check_count, each, shown

MAX_CONSTRAINTS = 256
MAX_RULES = 64
"""Of tolerations, of affinities, of generic resources, and of a node's taints."""
MAX_AMOUNT = (1 << 31) - 1
MIN_PRIORITY, MAX_PRIORITY = -1000, 1000
_SPREAD = re.compile(r"(?:node|engine)\.labels\.\S+")
_TAINT_KEY = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._/-]{0,251}[a-zA-Z0-9])?")
_KIND = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,62}")
_MAX_VALUE = 256


def check_placement(placement: Placement, mode: ServiceMode) -> Iterator[Violation]:
    yield from check_count(placement.constraints, MAX_CONSTRAINTS, "constraints", "constraints")
    for index, text in enumerate(placement.constraints[:MAX_CONSTRAINTS]):
        yield from each("constraints", index, check_constraint(text))
    yield from check_count(placement.preferences, MAX_CONSTRAINTS, "preferences", "placement preferences")
    for index, preference in enumerate(placement.preferences[:MAX_CONSTRAINTS]):
        if _SPREAD.fullmatch(preference.spread_descriptor) is None:
            yield (
                f"preferences[{index}].spread_descriptor",
                f"invalid placement preference {shown(preference.spread_descriptor)}: use node.labels.<name>",
            )
    if placement.max_replicas_per_node and mode in (ServiceMode.GLOBAL, ServiceMode.GLOBAL_JOB):
        yield (
            "max_replicas_per_node",
            "replicas-max-per-node can only be used with replicated or replicated-job mode",
        )
    yield from _check_rules(placement)


def _check_rules(placement: Placement) -> Iterator[Violation]:
    yield from check_count(placement.tolerations, MAX_RULES, "tolerations", "tolerations")
    for index, toleration in enumerate(placement.tolerations[:MAX_RULES]):
        yield from each("tolerations", index, _check_toleration(toleration))
    yield from check_count(placement.affinities, MAX_RULES, "affinities", "affinities")
    for index, affinity in enumerate(placement.affinities[:MAX_RULES]):
        yield from each("affinities", index, _check_affinity(affinity))
    yield from check_count(placement.platforms, MAX_RULES, "platforms", "platforms")


def _check_toleration(toleration: Toleration) -> Iterator[Violation]:
    if toleration.key and _TAINT_KEY.fullmatch(toleration.key) is None:
        yield "key", f"invalid toleration: {shown(toleration.key)} cannot be the key of a taint"
    if not toleration.key and toleration.value is not None:
        yield "value", "invalid toleration: a value needs a key"
    if toleration.value is not None and len(toleration.value) > _MAX_VALUE:
        yield "value", f"invalid toleration: a value has {_MAX_VALUE} characters at most"


def _check_affinity(affinity: Affinity) -> Iterator[Violation]:
    if not affinity.service or len(affinity.service) > _MAX_VALUE:
        yield "service", "an affinity needs the name of a service"
    if affinity.topology and _SPREAD.fullmatch(affinity.topology) is None:
        yield "topology", f"invalid topology {shown(affinity.topology)}: use node.labels.<name>"
    if affinity.weight > 100:
        yield "weight", f"invalid weight {affinity.weight}: 1 to 100, or 0 for a must"


def check_priority(priority: int) -> Iterator[Violation]:
    if not MIN_PRIORITY <= priority <= MAX_PRIORITY:
        yield "priority", f"invalid priority {priority}: it must be between {MIN_PRIORITY} and {MAX_PRIORITY}"


def check_generic(resources: tuple[GenericResource, ...]) -> Iterator[Violation]:
    """Of reservations: only numbers may be asked for, also of named ones; in docker's words."""
    yield from check_count(resources, MAX_RULES, "generic", "generic resources")
    seen: dict[str, None] = {}
    for index, resource in enumerate(resources[:MAX_RULES]):
        path = f"generic[{index}]"
        if _KIND.fullmatch(resource.kind) is None:
            yield f"{path}.kind", f"invalid generic resource {shown(resource.kind)}"
        if resource.value:
            yield (
                f"{path}.value",
                "invalid generic-resource request: Named generic resources is not supported, use COUNT",
            )
        elif not 0 < resource.count <= MAX_AMOUNT:
            yield f"{path}.count", f"invalid generic resource {resource.kind}: ask for 1 to {MAX_AMOUNT}"
        if resource.kind in seen:
            yield f"{path}.kind", f"generic resource {resource.kind} is asked for twice"
        seen[resource.kind] = None


def check_taints(taints: Iterable[Taint]) -> Iterator[Violation]:
    taints = tuple(taints)
    yield from check_count(taints, MAX_RULES, "taints", "taints")
    seen: dict[tuple[str, int], None] = {}
    for index, taint in enumerate(taints[:MAX_RULES]):
        if _TAINT_KEY.fullmatch(taint.key) is None:
            yield f"taints[{index}].key", f"invalid taint: {shown(taint.key)} cannot be a key"
        if len(taint.value) > _MAX_VALUE:
            yield f"taints[{index}].value", f"invalid taint {taint.key}: a value has {_MAX_VALUE} characters at most"
        if (taint.key, taint.effect) in seen:
            yield f"taints[{index}]", f"taint {taint.key} is given twice with the same effect"
        seen[taint.key, taint.effect] = None

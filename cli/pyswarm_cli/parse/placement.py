"""Generic resources, taints, tolerations and affinities as users write them. Pure."""

from __future__ import annotations

import re

from pyswarm_cli.parse.quantities import count
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Affinity, GenericResource, Taint, TaintEffect, Toleration

_EFFECTS = {effect.name.lower().replace("_", "-"): effect for effect in TaintEffect}
_KEY = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._/-]{0,251}[a-zA-Z0-9])?")
_KIND = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,62}")


def generic_resource(text: str) -> GenericResource:
    """One `--generic-resource` of a service: `gpu=2`; a service asks for a number, also of named ones."""
    kind, equals, value = text.partition("=")
    if not equals or not _KIND.fullmatch(kind):
        raise InvalidArgument(f'could not parse generic resource "{text}": write KIND=COUNT')
    if not value.isascii() or not value.isdigit() or not 0 < int(value[:19]) < 1 << 31:
        raise InvalidArgument(f"generic resource {kind}: '{value}' is not a number of them: named ones are counted too")
    return GenericResource(kind=kind, count=int(value))


def toleration(text: str) -> Toleration:
    """One `--toleration`: `KEY[=VALUE][:EFFECT]`; `*` alone tolerates everything."""
    if text == "*":
        return Toleration()
    rest, colon, effect = text.partition(":")
    key, equals, value = rest.partition("=")
    if not _KEY.fullmatch(key):
        raise InvalidArgument(f'invalid toleration "{text}": write KEY[=VALUE][:EFFECT], or "*" for all taints')
    effects = (effect_of(effect, text),) if colon else ()
    return Toleration(key=key, value=value if equals else None, effects=effects)


def taint(text: str) -> Taint:
    """One `--taint-add`: `KEY[=VALUE][:EFFECT]`, no-schedule if no effect is named."""
    rest, colon, effect = text.partition(":")
    key, _, value = rest.partition("=")
    if not _KEY.fullmatch(key):
        raise InvalidArgument(f'invalid taint "{text}": write KEY[=VALUE][:EFFECT]')
    return Taint(key=key, value=value, effect=effect_of(effect, text) if colon else TaintEffect.NO_SCHEDULE)


def affinity(text: str) -> Affinity:
    """One `--affinity`: `SERVICE[,topology=node.labels.KEY][,weight=N]`, or `!SERVICE…` to be away from it."""
    name, *options = text.split(",")
    service = name.removeprefix("!")
    if not service:
        raise InvalidArgument(f'invalid affinity "{text}": write [!]SERVICE[,topology=node.labels.KEY][,weight=1..100]')
    topology, weight = "", 0
    for option in options:
        key, _, value = option.partition("=")
        if key == "topology" and value:
            topology = value
        elif key == "weight":
            weight = count(value)
        else:
            raise InvalidArgument(f'invalid affinity "{text}": {option} is neither topology=… nor weight=…')
    return Affinity(service=service, anti=name.startswith("!"), topology=topology, weight=weight)


def effect_of(name: str, text: str) -> TaintEffect:
    effect = _EFFECTS.get(name.lower())
    if effect is None:
        raise InvalidArgument(f'invalid effect in "{text}": use {", ".join(_EFFECTS)}')
    return effect

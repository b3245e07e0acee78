"""Taints of a node as `node update` changes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyswarm_cli.params import Parsed
from pyswarm_cli.parse.placement import effect_of, taint
from pyswarm_common import errors
from pyswarm_common.model import Taint

TAINT = Parsed("taint", taint)


def change_taints(spec: Any, add: Sequence[Taint], remove: Sequence[str]) -> None:
    """Remove by key (and effect, if one is named), then add; one of the same key and effect is replaced."""
    for text in remove:
        key, colon, effect = text.partition(":")
        kept = [t for t in spec.taints if t.key != key or (colon and t.effect != effect_of(effect, text).value)]
        if len(kept) == len(spec.taints):
            raise errors.NotFound(f"taint '{text}' doesn't exist on the node")
        _put(spec, kept)
    for new in add:
        _put(spec, [t for t in spec.taints if (t.key, t.effect) != (new.key, new.effect.value)])
        spec.taints.add(key=new.key, value=new.value, effect=new.effect.value)


def _put(spec: Any, taints: Sequence[Any]) -> None:
    kept = list(taints)
    del spec.taints[:]
    spec.taints.extend(kept)

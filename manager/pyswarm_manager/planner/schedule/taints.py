"""Taints and tolerations: which nodes keep which tasks away."""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm_common.model import Node, Taint, TaintEffect, Toleration


def tolerates(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    return any(
        (not toleration.key or toleration.key == taint.key)
        and (toleration.value is None or toleration.value == taint.value)
        and (not toleration.effects or taint.effect in toleration.effects)
        for toleration in tolerations
    )


def repels(node: Node, tolerations: tuple[Toleration, ...]) -> bool:
    """Whether the node takes no new task with these tolerations."""
    return any(
        taint.effect is not TaintEffect.PREFER_NO_SCHEDULE and not tolerates(tolerations, taint)
        for taint in node.spec.taints
    )


def evicts(node: Node, tolerations: tuple[Toleration, ...]) -> bool:
    """Whether tasks with these tolerations may not even stay."""
    return any(
        taint.effect is TaintEffect.NO_EXECUTE and not tolerates(tolerations, taint) for taint in node.spec.taints
    )


def is_second_choice(node: Node, tolerations: tuple[Toleration, ...]) -> bool:
    """Whether the node is to be used only if there is no other."""
    return any(
        taint.effect is TaintEffect.PREFER_NO_SCHEDULE and not tolerates(tolerations, taint)
        for taint in node.spec.taints
    )

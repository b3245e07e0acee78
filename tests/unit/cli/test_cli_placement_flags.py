"""Flags of where tasks may run: what they mean, what is said of those that mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.v1 import types_pb2
from pyswarm_cli.parse.placement import affinity, generic_resource, taint, toleration
from pyswarm_cli.tainting import change_taints
from pyswarm_common.errors import InvalidArgument, NotFound
from pyswarm_common.model import Affinity, GenericResource, Taint, TaintEffect, Toleration

GOOD: list[tuple[Callable[[str], Any], str, Any]] = [
    (generic_resource, "gpu=2", GenericResource("gpu", 2)),
    (toleration, "*", Toleration()),
    (toleration, "gpu", Toleration("gpu")),
    (toleration, "gpu=yes", Toleration("gpu", "yes")),
    (toleration, "gpu=:no-execute", Toleration("gpu", "", (TaintEffect.NO_EXECUTE,))),
    (toleration, "gpu:prefer-no-schedule", Toleration("gpu", None, (TaintEffect.PREFER_NO_SCHEDULE,))),
    (taint, "gpu", Taint("gpu")),
    (taint, "gpu=yes:no-execute", Taint("gpu", "yes", TaintEffect.NO_EXECUTE)),
    (affinity, "db", Affinity("db")),
    (affinity, "!db,topology=node.labels.zone", Affinity("db", anti=True, topology="node.labels.zone")),
    (affinity, "db,weight=50", Affinity("db", weight=50)),
]
BAD: list[tuple[Callable[[str], Any], str, str]] = [
    (generic_resource, "gpu", "write KIND=COUNT"),
    (generic_resource, "gpu=UUID1", "named ones are counted too"),
    (generic_resource, "gpu=0", "is not a number"),
    (generic_resource, "gpu=" + "9" * 5000, "is not a number"),
    (toleration, "", 'write KEY[=VALUE][:EFFECT], or "*"'),
    (toleration, "gpu:never", "use no-schedule, prefer-no-schedule, no-execute"),
    (taint, "=x", "write KEY[=VALUE][:EFFECT]"),
    (affinity, "!", "write [!]SERVICE"),
    (affinity, "db,near=1", "neither topology=… nor weight=…"),
]


@pytest.mark.parametrize(("read", "text", "meant"), GOOD, ids=[f"{r.__name__} {t[:20]}" for r, t, _ in GOOD])
def test_means(read: Callable[[str], Any], text: str, meant: Any) -> None:
    assert read(text) == meant


@pytest.mark.parametrize(("read", "text", "words"), BAD, ids=[f"{r.__name__} {t[:20]}" for r, t, _ in BAD])
def test_is_refused(read: Callable[[str], Any], text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read(text)
    assert words in str(refused.value)


@given(st.sampled_from([generic_resource, toleration, taint, affinity]), st.text(max_size=40))
def test_whatever_is_written_is_read_or_refused(read: Callable[[str], Any], text: str) -> None:
    try:
        read(text)
    except InvalidArgument:
        return


def spec(*taints: Taint) -> Any:
    message = types_pb2.NodeSpec()
    for item in taints:
        message.taints.add(key=item.key, value=item.value, effect=item.effect.value)
    return message


def shown(message: Any) -> list[tuple[str, str, int]]:
    return [(item.key, item.value, item.effect) for item in message.taints]


def test_taints_are_removed_by_key_or_by_key_and_effect() -> None:
    both = (Taint("a", "1"), Taint("a", "1", TaintEffect.NO_EXECUTE), Taint("b"))
    node = spec(*both)
    change_taints(node, (), ("a",))
    assert shown(node) == [("b", "", TaintEffect.NO_SCHEDULE)]
    node = spec(*both)
    change_taints(node, (), ("a:no-execute",))
    assert [key for key, _, _ in shown(node)] == ["a", "b"]
    with pytest.raises(NotFound):
        change_taints(node, (), ("c",))


def test_a_taint_of_the_same_key_and_effect_is_replaced() -> None:
    node = spec(Taint("a", "1"))
    change_taints(node, (Taint("a", "2"), Taint("a", "3", TaintEffect.NO_EXECUTE)), ())
    assert shown(node) == [("a", "2", TaintEffect.NO_SCHEDULE), ("a", "3", TaintEffect.NO_EXECUTE)]

"""What is said of placements, generic resources, priorities and taints that cannot be meant."""

from __future__ import annotations

import pytest

from pyswarm_common.model import (
    Affinity,
    GenericResource,
    NodeSpec,
    Placement,
    ServiceMode,
    Taint,
    TaintEffect,
    Toleration,
)
from pyswarm_manager.api.validate.node import check_node_spec
from pyswarm_manager.api.validate.placement import MAX_RULES, check_generic, check_placement, check_priority

PLACEMENTS = [
    (Placement(constraints=("node.labels.a =~ (",)), "constraints[0]", "bad regular expression"),
    (Placement(tolerations=(Toleration("a b"),)), "tolerations[0].key", "cannot be the key of a taint"),
    (Placement(tolerations=(Toleration("", "x"),)), "tolerations[0].value", "a value needs a key"),
    (Placement(affinities=(Affinity(),)), "affinities[0].service", "needs the name of a service"),
    (Placement(affinities=(Affinity("db", topology="zone"),)), "affinities[0].topology", "use node.labels.<name>"),
    (Placement(affinities=(Affinity("db", weight=101),)), "affinities[0].weight", "1 to 100, or 0 for a must"),
    (Placement(affinities=(Affinity("db"),) * (MAX_RULES + 1)), "affinities", "affinities"),
]
GENERIC = [
    ((GenericResource("gpu", value="UUID1"),), "Named generic resources is not supported, use COUNT"),
    ((GenericResource("gpu", 0),), "ask for 1 to"),
    ((GenericResource("g u", 1),), "invalid generic resource"),
    ((GenericResource("gpu", 1), GenericResource("gpu", 2)), "is asked for twice"),
]


@pytest.mark.parametrize(("placement", "path", "words"), PLACEMENTS, ids=[f"{i}" for i in range(len(PLACEMENTS))])
def test_placements(placement: Placement, path: str, words: str) -> None:
    [(found, sentence)] = check_placement(placement, ServiceMode.REPLICATED)
    assert found == path
    assert words in sentence


@pytest.mark.parametrize(("resources", "words"), GENERIC, ids=[f"{i}" for i in range(len(GENERIC))])
def test_generic_resources(resources: tuple[GenericResource, ...], words: str) -> None:
    [(_, sentence)] = check_generic(resources)
    assert words in sentence


def test_all_that_can_be_meant_passes() -> None:
    placement = Placement(
        constraints=("node.labels.a in (b, c)", "node.labels.n > 3"),
        tolerations=(Toleration(), Toleration("a", "b", (TaintEffect.NO_EXECUTE,))),
        affinities=(Affinity("db", anti=True, topology="node.labels.zone", weight=100),),
    )
    assert list(check_placement(placement, ServiceMode.REPLICATED)) == []
    assert list(check_generic((GenericResource("gpu", 2),))) == []


@pytest.mark.parametrize(("priority", "is_right"), [(-1001, False), (-1000, True), (1000, True), (1001, False)])
def test_priorities(priority: int, is_right: bool) -> None:
    assert (list(check_priority(priority)) == []) is is_right


@pytest.mark.parametrize(
    ("taints", "words"),
    [
        ((Taint("a b"),), "cannot be a key"),
        ((Taint("a", "x" * 257),), "256 characters at most"),
        ((Taint("a"), Taint("a", "2")), "given twice with the same effect"),
    ],
    ids=["key", "value", "twice"],
)
def test_taints(taints: tuple[Taint, ...], words: str) -> None:
    [(_, sentence)] = check_node_spec(NodeSpec(taints=taints))
    assert words in sentence
    assert list(check_node_spec(NodeSpec(taints=(Taint("a"), Taint("a", effect=TaintEffect.NO_EXECUTE))))) == []

"""Placement constraints: what they mean, and what is said about those that mean nothing."""

from __future__ import annotations

import pytest

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Node, NodeDescription, NodeRole, NodeSpec, NodeStatus
from pyswarm_manager.planner.schedule.constraints import parse_constraint, parse_constraints, satisfies

NODE = Node(
    id="abc123",
    role=NodeRole.WORKER,
    spec=NodeSpec(labels={"zone": "East", "disk": "ssd"}),
    description=NodeDescription(
        hostname="Alpha", os="linux", architecture="x86_64", engine_labels={"storage": "fast disk"}
    ),
    status=NodeStatus(address="192.168.7.4"),
)

HOLDS = [
    "node.id==abc123",
    "node.id != other",
    "node.hostname == alpha",
    "node.role==worker",
    "node.role != manager",
    "node.role==WORKER",
    "node.ip==192.168.7.4",
    "node.ip==192.168.0.0/16",
    "node.ip==192.168.7.9/24",
    "node.ip!=10.0.0.0/8",
    "node.platform.os==Linux",
    "node.platform.arch==amd64",
    "node.platform.arch==x86_64",
    "node.platform.arch!=arm64",
    "node.labels.zone==east",
    "node.labels.zone!=west",
    "node.labels.missing!=anything",
    "engine.labels.storage==fast disk",
]
FAILS = [
    "node.id==other",
    "node.hostname!=ALPHA",
    "node.role==manager",
    "node.ip==10.0.0.0/8",
    "node.ip==fd00::/8",
    "node.labels.missing==x",
    "node.labels.zone!=east",
    "engine.labels.zone==east",
]


@pytest.mark.parametrize("text", HOLDS)
def test_holds(text: str) -> None:
    assert parse_constraint(text).matches(NODE)


@pytest.mark.parametrize("text", FAILS)
def test_does_not_hold(text: str) -> None:
    assert not parse_constraint(text).matches(NODE)


def test_all_must_hold() -> None:
    assert satisfies(NODE, parse_constraints(("node.role==worker", "node.labels.disk==ssd")))
    assert not satisfies(NODE, parse_constraints(("node.role==worker", "node.labels.disk==hdd")))


def test_a_node_without_address_is_in_no_subnet() -> None:
    fresh = Node(id="fresh")
    assert not parse_constraint("node.ip==0.0.0.0/0").matches(fresh)
    assert parse_constraint("node.ip!=10.0.0.0/8").matches(fresh)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("node.role", "write it as 'key==value', 'key!=value'"),
        ("node.role=worker", "write it as"),
        ("", "write it as"),
        ("node.id==", "cannot be a value"),
        ("node.id==a;b", "cannot be a value"),
        ("node.colour==red", "unknown key 'node.colour', use one of node.id, "),
        ("node.labels.==x", "unknown key"),
        ("node.role==boss", "node.role is worker or manager"),
        ("node.ip==localhost", "node.ip takes an address or a subnet"),
    ],
)
def test_says_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as found:
        parse_constraint(text)
    assert words in str(found.value)
    assert f"'{text}'" in str(found.value)

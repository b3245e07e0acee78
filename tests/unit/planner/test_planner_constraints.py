"""Placement constraints: what they mean, and what is said about those that mean nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Node, NodeDescription, NodeRole, NodeSpec, NodeStatus
from pyswarm_manager.planner.schedule.constraints import parse_constraint, parse_constraints, satisfies

NODE = Node(
    id="abc123",
    role=NodeRole.WORKER,
    spec=NodeSpec(labels={"zone": "East", "disk": "ssd", "cores": "8", "release": "v1.10.0"}),
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
    "node.labels.zone in (west, East)",
    "node.labels.zone in east",
    "node.id in (abc123)",
    "node.ip in (10.0.0.0/8, 192.168.7.0/24)",
    "node.platform.arch in (arm64, x86_64)",
    "node.labels.cores > 7",
    "node.labels.cores<8.5",
    "node.labels.release > 1.9.9",
    "node.labels.release<1.10.1",
    "node.labels.zone =~ ^E",
    "node.hostname=~ph.$",
    "node.labels.zone=~(?i)EAST",
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
    "node.labels.zone in (west, north)",
    "node.labels.missing in (a, b)",
    "node.ip in (10.0.0.0/8, 172.16.0.0/12)",
    "node.labels.cores > 8",
    "node.labels.cores < 8",
    "node.labels.zone > 1",
    "node.labels.missing < 5",
    "node.labels.release < 1.9",
    "node.labels.zone =~ ^e",
    "node.labels.missing =~ .*",
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
        ("node.labels.n < many", "is no number or version to compare"),
        ("node.labels.n > ", "cannot be a value"),
        ("node.labels.n =~ (", "bad regular expression"),
        ("node.labels.n =~ (?=a)b", "bad regular expression"),
        ("node.ip =~ 10", "node.ip takes ==, != and in"),
        ("node.role in (worker, boss)", "node.role is worker or manager"),
        ("node.labels.a in ()", "cannot be a value"),
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


def test_no_expression_takes_long() -> None:
    """Users' expressions run on the leader: one that would keep a backtracking engine for years is done at once."""
    node = Node(id="n", spec=NodeSpec(labels={"x": "a" * 4000}))
    assert not parse_constraint("node.labels.x =~ (a+)+(a+)+(a+)+$b").matches(node)
    assert not parse_constraint("node.labels.x =~ ^(a|a)*$c").matches(node)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=60), st.text("node.labelsinp=~!<>()[]{},*+? ab1.", max_size=60)))
def test_whatever_is_written_is_a_constraint_or_refused_with_a_sentence(text: str) -> None:
    try:
        constraint = parse_constraint(text)
    except InvalidArgument as error:
        said = str(error)
    else:
        said = "invalid constraint" if constraint.matches(NODE) not in (True, False) else ""
    assert said == "" or said.startswith("invalid constraint '")

"""What managers make of nodes' answers: who is away, and what the verdict of a trace is."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from pyswarm.v1 import network_checks_pb2 as pb
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Node, NodeDescription, NodeState, NodeStatus
from pyswarm_manager.access.network_checks import _verified
from pyswarm_manager.access.tracing import check, verdict_of

STOP, THROUGH = pb.TraceStep.OUTCOME_STOP, pb.TraceStep.OUTCOME_THROUGH


class Silent:
    """Agents of which none answers."""

    async def connected(self, address: str) -> grpc.aio.Channel:
        raise TimeoutError


def node(state: NodeState = NodeState.READY, agent: str = "192.0.2.1:7946") -> Node:
    description = NodeDescription(hostname="one", agent_address=agent)
    return Node(id="n1", description=description, status=NodeStatus(state=state))


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (node(NodeState.DOWN), "node one is down"),
        (node(agent=""), "node one has not said yet where its agent is"),
        (node(), "the agent of node one does not answer"),
    ],
)
async def test_a_node_that_cannot_be_asked_is_away(asked: Node, why: str) -> None:
    agents: Any = Silent()
    answer = await _verified(asked, pb.VerifyNetworksRequest(), agents, asyncio.Semaphore(1))
    assert (answer.away, answer.node_id, answer.node_hostname) == (why, "n1", "one")


@pytest.mark.parametrize(
    ("stopped", "through", "outcome", "text"),
    [
        ([], ["web.1"], THROUGH, "goes through to web.1"),
        ([], [], STOP, "stops: there is nowhere to go"),
        (["no backend"], [], STOP, "stops: no backend"),
        (["web.2: nothing listens", "x"], ["web.1"], STOP, "stops: web.2: nothing listens (but goes through to web.1)"),
    ],
)
def test_the_verdict_names_the_first_reason(stopped: list[str], through: list[str], outcome: int, text: str) -> None:
    verdict = verdict_of(stopped, through)
    assert (verdict.step, verdict.outcome, verdict.text) == ("verdict", outcome, text)


@pytest.mark.parametrize(
    "request_",
    [
        pb.TraceNetworkRequest(source="a"),
        pb.TraceNetworkRequest(source="a", target="x" * 300),
        pb.TraceNetworkRequest(source="a", target="b", port=70000),
        pb.TraceNetworkRequest(source="a", target="b", protocol="icmp"),
    ],
    ids=["no target", "long", "port", "protocol"],
)
def test_what_cannot_be_traced_is_refused(request_: pb.TraceNetworkRequest) -> None:
    with pytest.raises(InvalidArgument):
        check(request_)

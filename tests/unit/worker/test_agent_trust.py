"""Which nodes an agent refuses: what the managers told, kept on disk, forgotten in time, and bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.codec import set_timestamp
from pyswarm_common.errors import NodeRemoved
from pyswarm_common.rpc import Caller, Peer
from pyswarm_worker import trust
from pyswarm_worker.store import AgentStore, put_trust
from pyswarm_worker.trust import RemovedNodes


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def update(*removed: tuple[str, float], complete: bool = False) -> pb.TrustUpdate:
    message = pb.TrustUpdate(complete=complete)
    for node_id, expires_at in removed:
        set_timestamp(message.removed.add(id=node_id).expires_at, expires_at)
    return message


def is_refused(nodes: RemovedNodes, node_id: str) -> bool:
    try:
        with nodes.gate.entered(Peer(Caller.LOCAL, node_id), "m"):
            return False
    except NodeRemoved:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def nodes(clock: Clock) -> RemovedNodes:
    return RemovedNodes(clock, clock)


def test_what_is_told_is_refused(nodes: RemovedNodes) -> None:
    assert not is_refused(nodes, "a")
    assert nodes.learn(update(("a", 2e3), complete=True)) is not None
    assert nodes.learn(update(("b", 2e3))) is not None
    assert is_refused(nodes, "a")
    assert is_refused(nodes, "b")
    assert nodes.learn(update(("b", 2e3))) is None  # no news, nothing to write
    nodes.learn(update(("b", 2e3), complete=True))
    assert not is_refused(nodes, "a")


def test_it_is_forgotten_when_the_certificate_has_expired(nodes: RemovedNodes, clock: Clock) -> None:
    nodes.learn(update(("a", 2e3), ("b", 3e3), complete=True))
    clock.now = 2.5e3
    kept = nodes.learn(update(("c", 9e3)))
    assert kept is not None
    assert {removed.id for removed in kept.removed} == {"b", "c"}


def test_the_list_is_bounded(nodes: RemovedNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "MAX_REMOVED", 3)
    nodes.learn(update(*((str(number), 2e3 + number) for number in range(10)), complete=True))
    assert [is_refused(nodes, str(number)) for number in range(10)] == [False] * 7 + [True] * 3


async def test_it_outlives_the_daemon(tmp_path: Path, nodes: RemovedNodes, clock: Clock) -> None:
    kept = nodes.learn(update(("a", 2e3), complete=True))
    assert kept is not None
    store = await AgentStore.open(tmp_path / "agent.db")
    await store.write([put_trust(kept)])
    await store.close()
    store = await AgentStore.open(tmp_path / "agent.db")
    again = RemovedNodes(clock, clock)
    again.load((await store.load()).trust)
    await store.close()
    assert is_refused(again, "a")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 1e5), st.booleans()), max_size=12))
def test_whatever_is_told_what_is_kept_says_whom_to_refuse(told: list[tuple[str, float, bool]]) -> None:
    clock = Clock()
    nodes, kept = RemovedNodes(clock, clock), pb.TrustUpdate()
    for node_id, expires_at, complete in told:
        kept = nodes.learn(update((node_id, expires_at), complete=complete)) or kept
    again = RemovedNodes(clock, clock)
    again.load(kept)
    assert [is_refused(again, name) for name in "abcdef"] == [is_refused(nodes, name) for name in "abcdef"]

"""Whom an agent dials when those it was told of are gone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_worker import known_managers
from pyswarm_worker.known_managers import LAST_RESORT_S, MAX_FORMER, KnownManagers
from pyswarm_worker.store import AgentStore, connect


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now


def known(clock: Clock, *joined_at: str, seeds: tuple[str, ...] = ()) -> KnownManagers:
    managers = KnownManagers(joined_at, seeds)
    managers._loop = clock  # type: ignore[assignment]
    managers._without_since = 0.0
    return managers


def told(managers: KnownManagers, *addresses: str) -> bool:
    """Whether something is to be kept."""
    return bool(managers.learn(pb.ManagerList(addresses=addresses)))


async def test_the_managers_of_today_come_first_and_alone_while_they_answer() -> None:
    clock = Clock()
    managers = known(clock, "a:1", seeds=("name:1",))
    managers.session_started()
    assert told(managers, "b:1", "c:1")
    assert not told(managers, "b:1", "c:1")
    clock.now = 10 * LAST_RESORT_S
    assert managers.candidates() == ("b:1", "c:1", "name:1")
    managers.session_broken()
    assert managers.candidates() == ("b:1", "c:1", "name:1")


async def test_after_a_while_without_a_session_former_managers_are_tried_one_per_round() -> None:
    clock = Clock()
    managers = known(clock, "a:1")
    managers.session_started()
    for addresses in (("a:1", "b:1"), ("b:1", "c:1"), ("d:1",)):
        told(managers, *addresses)
    managers.session_broken()
    clock.now += LAST_RESORT_S / 2
    managers.session_broken()  # another round that found nobody: it counts from the first
    clock.now += LAST_RESORT_S / 2
    rounds = [managers.candidates() for _ in range(6)]
    assert all(candidates[0] == "d:1" and len(candidates) == 2 for candidates in rounds)
    assert {candidates[1] for candidates in rounds} == {"a:1", "b:1", "c:1"}


async def test_no_more_than_the_newest_are_kept() -> None:
    managers = known(Clock())
    for number in range(3 * known_managers.MAX_FORMER):
        told(managers, f"m{number}:1")
    assert len(managers._former) == MAX_FORMER
    assert managers._former[0] == f"m{3 * MAX_FORMER - 2}:1"


async def test_the_next_daemon_knows_them_too(tmp_path: Path) -> None:
    store = AgentStore(connect(tmp_path / "agent.db"), ThreadPoolExecutor(1))
    try:
        managers = known(Clock(), "a:1")
        await store.write(managers.learn(pb.ManagerList(addresses=["b:1"], seeds=["name:1"])))
        clock = Clock()
        later = known(clock, "x:1")
        later.load(await store.load())
        clock.now = LAST_RESORT_S
        assert [later.candidates() for _ in range(2)] == [("b:1", "name:1", "x:1"), ("b:1", "name:1", "a:1")]
    finally:
        await store.close()

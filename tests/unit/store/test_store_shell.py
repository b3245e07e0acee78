"""The store's shell on a log that commits at once: proposals, watches, subscriptions, snapshots."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from store_helpers import service

from pyswarm_common.errors import AlreadyExists, Exhausted
from pyswarm_manager.store import store as store_module
from pyswarm_manager.store.changes import Create, Event, delete
from pyswarm_manager.store.store import Store
from pyswarm_manager.store.tables import Kind


@dataclass
class Committed:
    index: int
    result: object


class InstantLog:
    """Raft with one member and no disk."""

    def __init__(self, *stores: Store) -> None:
        self.stores = stores
        self.index = 0

    async def propose(self, data: bytes) -> Committed:
        await asyncio.sleep(0)
        self.index += 1
        results = [store.apply(self.index, 1, data) for store in self.stores]
        return Committed(self.index, results[0])


@pytest.fixture
def store() -> Store:
    store = Store(clock=lambda: 5.0)
    store.connect(InstantLog(store))
    return store


async def test_propose_returns_the_index_and_the_view_has_it(store: Store) -> None:
    assert await store.propose([Create(service("web"))]) == 1
    assert store.view.services["id-web"].meta.created_at == 5.0
    assert store.view.index == 1


async def test_a_refusal_is_raised_to_its_proposer(store: Store) -> None:
    await store.propose([Create(service("web"))])
    with pytest.raises(AlreadyExists):
        await store.propose([Create(service("web"))])
    assert await store.propose([Create(service("api"))]) == 3


async def test_a_watch_gives_every_batch_from_the_version_on(store: Store) -> None:
    for name in ("a", "b", "c"):
        await store.propose([Create(service(name))])
    seen = []
    async for index, events, _ in store.watch(from_version=1):
        seen.append((index, [event.object.id for event in events if event.kind is Kind.SERVICE]))
        if index == 3:
            await store.propose([delete(store.view.services["id-a"])])
        if index == 4:
            break
    assert seen == [(2, ["id-b"]), (3, ["id-c"]), (4, ["id-a"])]


async def test_a_watch_without_version_begins_now(store: Store) -> None:
    await store.propose([Create(service("old"))])
    watch = store.watch()
    first = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    await store.propose([Create(service("new"))])
    index, events, _ = await first
    assert (index, events[0].object.id) == (2, "id-new")


async def test_a_watch_that_falls_behind_must_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "HISTORY_BATCHES", 2)
    await store.propose([Create(service("0"))])
    watch = store.watch(from_version=0)
    assert (await anext(watch))[0] == 1
    for name in ("1", "2", "3", "4"):
        await store.propose([Create(service(name))])
    with pytest.raises(Exhausted, match="read everything again"):
        await anext(watch)
    with pytest.raises(Exhausted):
        await anext(store.watch(from_version=1))
    assert (await anext(store.watch(from_version=3)))[0] == 4


async def test_subscribers_are_called_in_apply_until_they_stop(store: Store) -> None:
    seen: list[tuple[int, tuple[Event, ...]]] = []
    stop = store.subscribe(lambda index, events: seen.append((index, events)))
    await store.propose([Create(service("web"))])
    stop()
    await store.propose([Create(service("api"))])
    assert [(index, [event.kind for event in events]) for index, events in seen] == [
        (1, ["service", "service_revision"])
    ]


async def test_a_snapshot_restores_another_member_who_sees_the_difference() -> None:
    leader, follower = Store(clock=lambda: 1.0), Store(clock=lambda: 1.0)
    log = InstantLog(leader, follower)
    leader.connect(log)
    for name in ("a", "b"):
        await leader.propose([Create(service(name))])
    log.stores = (leader,)
    await leader.propose([Create(service("c")), delete(leader.view.services["id-a"])])
    seen: list[tuple[str, bool]] = []
    follower.subscribe(lambda _, events: seen.extend((event.object.id, event.new is None) for event in events))
    watch = follower.watch()
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    follower.restore(log.index, leader.capture()())
    assert follower.view == leader.view
    assert seen == [("id-a", True), ("id-c", False), ("id-a.1", True), ("id-c.1", False)]
    with pytest.raises(Exhausted):
        await waiting


async def test_a_watch_can_begin_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    store = Store(clock=lambda: now[0])
    store.connect(InstantLog(store))
    for second in (101.0, 102.0, 103.0):
        now[0] = second
        await store.propose([Create(service(f"at-{second:g}"))])
    assert [store.version_before(at) for at in (0.0, 101.5, 102.0, 103.0, 104.0)] == [0, 1, 1, 2, 3]
    assert (await anext(store.watch(store.version_before(102.0)))).at == 102.0
    monkeypatch.setattr(store_module, "HISTORY_BATCHES", 1)
    now[0] = 105.0
    await store.propose([Create(service("newer"))])
    assert store.version_before(105.5) == 4
    with pytest.raises(Exhausted):
        store.version_before(103.0)

"""Checkpoints in the log, digests of what was, and what the store is made of."""

from __future__ import annotations

import random

import pytest

from pyswarm_common import errors
from pyswarm_common.model import ContainerSpec, Node, Service, ServiceSpec, Task, TaskSpec
from pyswarm_manager.store.changes import ChangeSet, Checkpoint, Create
from pyswarm_manager.store.digest import digest, digest_of, freeze
from pyswarm_manager.store.encoding import decode_change_set, encode_change_set
from pyswarm_manager.store.sizes import LARGEST, list_objects, measure
from pyswarm_manager.store.store import Store
from pyswarm_manager.store.tables import Kind, Tables


def entry(*changes: object) -> bytes:
    return encode_change_set(ChangeSet(tuple(changes), 1.0))  # type: ignore[arg-type]


def test_a_checkpoint_is_the_same_after_the_wire() -> None:
    assert decode_change_set(entry(Checkpoint())).changes == (Checkpoint(),)


async def test_a_checkpoint_changes_nothing_and_keeps_what_was_there() -> None:
    store, seen = Store(lambda: 0.0), []
    store.subscribe(lambda index, events: seen.append(index))
    store.apply(1, 1, entry(Create(Node(id="n1"))))
    store.apply(2, 1, entry(Checkpoint()))
    at_two = digest(store.view)
    store.apply(3, 1, entry(Create(Node(id="n2"))))
    assert seen == [1, 3]
    assert digest(store.view) != at_two
    assert await store.checkpoints.digest_at(2) == at_two
    with pytest.raises(errors.FailedPrecondition, match="nothing is kept of index 3"):
        await store.checkpoints.digest_at(3)


async def test_a_snapshot_that_jumps_over_a_checkpoint_has_nothing_to_tell() -> None:
    leader, follower = Store(lambda: 0.0), Store(lambda: 0.0)
    for index, data in enumerate([entry(Create(Node(id="n1"))), entry(Checkpoint())], 1):
        leader.apply(index, 1, data)
    follower.restore(2, leader.capture()())
    with pytest.raises(errors.FailedPrecondition, match="it came in a snapshot"):
        await follower.checkpoints.digest_at(2)
    for store in (leader, follower):
        store.apply(3, 1, entry(Checkpoint()))
    assert await leader.checkpoints.digest_at(3) == await follower.checkpoints.digest_at(3)


def test_what_is_frozen_stays_and_the_order_of_arrival_is_nothing() -> None:
    ids = [f"{number:025d}" for number in range(500)]
    orders = [random.Random(seed).sample(ids, len(ids)) for seed in (1, 2)]
    frozen = []
    for order in orders:
        tables = Tables(index=7)
        for node_id in order:
            tables.put(Node(id=node_id))
        frozen.append(freeze(tables))
        tables.put(Node(id="later"))
    assert digest_of(frozen[0]) == digest_of(frozen[1])


def test_sizes_and_the_largest() -> None:
    tables = Tables(index=1)
    for number in range(10):
        spec = ServiceSpec(name=f"s{number}", task=TaskSpec(container=ContainerSpec(image="x" * 100 * number)))
        tables.put(Service(id=f"id{number}", spec=spec))
    tables.put(Task(id="t1", service_id="id1", service_name="s1", slot=4))
    frozen = freeze(tables)
    sizes = {size.kind: size for size in measure(frozen)}
    assert sizes[Kind.SERVICE].objects == 10
    assert [item.name for item in sizes[Kind.SERVICE].largest] == ["s9", "s8", "s7"][:LARGEST]
    everything = list_objects(frozen, Kind.SERVICE, 100)
    assert [item.name for item in everything] == [f"s{number}" for number in range(9, -1, -1)]
    assert sum(item.size_bytes for item in everything) == sizes[Kind.SERVICE].size_bytes
    assert list_objects(frozen, Kind.SERVICE, 2) == everything[:2]
    assert [item.name for item in list_objects(frozen, Kind.TASK, 5)] == ["s1.4"]
    assert (sizes[Kind.NODE].objects, sizes[Kind.NODE].size_bytes, sizes[Kind.NODE].largest) == (0, 0, ())

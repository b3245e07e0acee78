"""Change sets, snapshots and digests: nothing is lost, specs are written once, replicas compare equal."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_helpers import commit, service, task

from pyswarm_common.errors import Exhausted
from pyswarm_common.model import (
    AnyObject,
    Cluster,
    ContainerSpec,
    Network,
    Node,
    NodeDescription,
    NodeSpec,
    NodeStatus,
    Service,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from pyswarm_manager.store.apply import apply
from pyswarm_manager.store.changes import (
    Change,
    ChangeSet,
    Create,
    Delete,
    SetDesired,
    SetNodeStatus,
    SetTaskStatus,
    Update,
)
from pyswarm_manager.store.digest import digest
from pyswarm_manager.store.encoding import (
    MAX_CHANGE_SET_BYTES,
    decode_change_set,
    decode_snapshot,
    encode_change_set,
    encode_snapshot,
    split_changes,
)
from pyswarm_manager.store.tables import Kind, Tables

WEB = service("web")
OBJECTS: list[AnyObject] = [Cluster(id="c"), Node(id="n"), WEB, task(1, WEB), Network(id="x")]

changes_of_any_kind = st.lists(
    st.one_of(
        st.sampled_from(OBJECTS).flatmap(lambda item: st.sampled_from([Create(item), Update(item)])),
        st.builds(Delete, st.sampled_from(Kind), st.text(max_size=5), st.integers(0, 9)),
        st.builds(SetTaskStatus, st.text(max_size=5), st.builds(TaskStatus, state=st.sampled_from(TaskState))),
        st.builds(SetDesired, st.text(max_size=5), st.sampled_from(TaskState)),
        st.builds(SetNodeStatus, st.text(max_size=5), st.builds(NodeStatus), st.none() | st.builds(NodeDescription)),
    ),
    max_size=8,
)


@given(changes_of_any_kind, st.floats(0, 2e9))
@settings(max_examples=60, deadline=None)
def test_round_trip(changes: list[Change], now: float) -> None:
    change_set = ChangeSet(tuple(changes), now)
    assert decode_change_set(encode_change_set(change_set)) == change_set


def test_a_hundred_tasks_carry_one_spec() -> None:
    large = service("big", task=TaskSpec(container=ContainerSpec(image="x" * 10_000)))
    data = encode_change_set(ChangeSet(tuple(Create(task(number, large)) for number in range(100)), 0.0))
    assert len(data) < 30_000
    specs = {id(change.object.spec) for change in decode_change_set(data).changes if isinstance(change, Create)}
    assert len(specs) == 1


def test_too_large_a_change_set_is_refused_and_can_be_split() -> None:
    specs = [TaskSpec(container=ContainerSpec(image=str(number) + "x" * 50_000)) for number in range(100)]
    changes = [Create(task(number, service("s", task=spec))) for number, spec in enumerate(specs)]
    with pytest.raises(Exhausted, match="split it"):
        encode_change_set(ChangeSet(tuple(changes), 0.0))
    pieces = list(split_changes(changes))
    assert [change for piece in pieces for change in piece] == changes
    assert all(len(encode_change_set(ChangeSet(tuple(piece), 0.0))) <= MAX_CHANGE_SET_BYTES for piece in pieces)
    assert list(split_changes([])) == []


def filled() -> Tables:
    tables = Tables()
    commit(tables, Create(Cluster(id="c")), Create(Node(id="n1")), Create(Network(id="net")), Create(WEB))
    web = tables.services[WEB.id]
    commit(tables, *(Create(task(number, web)) for number in range(1, 20)))
    commit(tables, SetTaskStatus("task3", TaskStatus(state=TaskState.RUNNING)))
    return tables


def test_a_snapshot_is_the_tables_with_specs_still_shared() -> None:
    tables = filled()
    restored = decode_snapshot(encode_snapshot(tables))
    assert restored == tables
    assert digest(restored) == digest(tables)
    spec = restored.services[WEB.id].spec.task
    assert all(item.spec is spec for item in restored.tasks.values())


def test_a_snapshot_of_another_format_is_named() -> None:
    data = msgspec.msgpack.encode({"format": 99, "index": 1, "specs": [], "objects": []})
    with pytest.raises(ValueError, match="format 99"):
        decode_snapshot(data)


def test_the_digest_depends_on_content_only() -> None:
    one, other = filled(), filled()
    assert digest(one) == digest(other)
    node = one.nodes["n1"]
    one.nodes["n1"] = msgspec.structs.replace(node, spec=NodeSpec(labels={"a": "1", "b": "2"}))
    other.nodes["n1"] = msgspec.structs.replace(node, spec=NodeSpec(labels={"b": "2", "a": "1"}))
    assert digest(one) == digest(other)
    other.put(msgspec.structs.replace(other.tasks["task5"], slot=5, start_at=1.0))
    assert digest(one) != digest(other)


def test_members_that_apply_the_same_entries_are_equal() -> None:
    entries = [
        ChangeSet((Create(WEB), Create(task(1, WEB))), 1.0),
        ChangeSet((Create(WEB),), 2.0),
        ChangeSet((SetTaskStatus("task1", TaskStatus(state=TaskState.RUNNING)),), 3.0),
        ChangeSet((Update(Service(id=WEB.id)), Delete(Kind.TASK, "task1")), 4.0),
    ]
    data = [encode_change_set(entry) for entry in entries]
    members = [Tables(), Tables()]
    for member in members:
        for index, entry in enumerate(data, start=1):
            apply(member, index, decode_change_set(entry))
    assert members[0] == members[1]
    assert isinstance(members[0].tasks["task1"], Task)
    assert digest(members[0]) == digest(members[1])

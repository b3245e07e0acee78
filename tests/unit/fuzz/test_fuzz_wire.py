"""What comes over the wire: any message is understood or refused, and what was understood can be told to others."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_messages import messages

from pyswarm.v1 import dispatcher_pb2, raft_pb2, types_pb2
from pyswarm_common import model
from pyswarm_common.codec import from_proto, to_proto
from pyswarm_common.errors import PyswarmError
from pyswarm_manager.raft import wire
from pyswarm_worker.core.assignments import change_of

STRUCTS = [
    value
    for name in model.__all__
    if isinstance(value := getattr(model, name), type) and issubclass(value, model.Struct) and value is not model.Struct
]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda s: s.__name__)
@settings(max_examples=10)
@given(data=st.data())
def test_an_object_is_understood_or_refused_and_can_be_stored_and_told(
    struct: type[msgspec.Struct], data: st.DataObject
) -> None:
    kind: type[Message] = getattr(types_pb2, struct.__name__)
    message = data.draw(messages(kind))
    try:
        value = from_proto(struct, message)
    except ValueError:
        return
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=struct)
    again = to_proto(stored)
    assert kind.FromString(again.SerializeToString()) is not None


@given(messages(raft_pb2.RaftMessage))
def test_a_raft_message_is_understood_or_refused(message: raft_pb2.RaftMessage) -> None:
    with contextlib.suppress(PyswarmError):
        assert wire.decode(message, sender=1, to=2).to == 2


@given(messages(dispatcher_pb2.Assignments))
def test_assignments_are_understood_or_refused(message: dispatcher_pb2.Assignments) -> None:
    with contextlib.suppress(ValueError):
        change = change_of(message, ["a", "web"], ["n1"])
        assert len(change.update_tasks) == len(message.update_tasks)

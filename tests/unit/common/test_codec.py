"""The model and the wire say the same: same fields, same enum numbers, and a round trip changes nothing."""

from enum import IntEnum
from types import NoneType
from typing import Any, get_args

import msgspec
import pytest
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.v1 import types_pb2
from pyswarm_common import model
from pyswarm_common.codec import from_proto, to_proto

STRUCTS = [
    value
    for name in model.__all__
    if isinstance(value := getattr(model, name), type)
    and issubclass(value, msgspec.Struct)
    and value is not model.Struct
]
ENUMS = [
    value for name in model.__all__ if isinstance(value := getattr(model, name), type) and issubclass(value, IntEnum)
]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda s: s.__name__)
def test_struct_and_message_have_the_same_fields(struct: type[msgspec.Struct]) -> None:
    message = getattr(types_pb2, struct.__name__).DESCRIPTOR
    assert {f.name for f in msgspec.structs.fields(struct)} == set(message.fields_by_name)


def test_every_message_has_a_struct() -> None:
    assert set(types_pb2.DESCRIPTOR.message_types_by_name) == {s.__name__ for s in STRUCTS}


@pytest.mark.parametrize("enum", ENUMS, ids=lambda e: e.__name__)
def test_enums_have_the_same_numbers(enum: type[IntEnum]) -> None:
    descriptor: EnumDescriptor = types_pb2.DESCRIPTOR.enum_types_by_name[enum.__name__]
    prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in enum.__name__).lstrip("_") + "_"
    assert {value.name.removeprefix(prefix): value.number for value in descriptor.values} == {e.name: e for e in enum}


def values(annotation: Any, field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Values that the wire can hold."""
    options = [a for a in get_args(annotation) if a is not NoneType]
    if NoneType in get_args(annotation):
        return st.none() | values(options[0], field)
    if getattr(annotation, "__origin__", None) is tuple:
        return st.lists(values(get_args(annotation)[0], field), max_size=3).map(tuple)
    if getattr(annotation, "__origin__", None) is dict:
        return st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2)
    if issubclass(annotation, msgspec.Struct):
        return struct_values(annotation)
    if issubclass(annotation, IntEnum):
        return st.sampled_from(list(annotation))
    if annotation is float:
        return st.integers(0, 2**31).map(float)
    return {
        int: st.integers(0, 2**31 - 1),
        str: st.text(max_size=8),
        bool: st.booleans(),
        bytes: st.binary(max_size=8),
    }[annotation]


def struct_values(struct: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    fields = getattr(types_pb2, struct.__name__).DESCRIPTOR.fields_by_name
    return st.builds(struct, **{f.name: values(f.type, fields[f.name]) for f in msgspec.structs.fields(struct)})


ROOTS = [model.Task, model.Service, model.Node, model.Network, model.Cluster]


@pytest.mark.parametrize("struct", ROOTS, ids=lambda s: s.__name__)
def test_round_trip_over_the_wire(struct: type[msgspec.Struct]) -> None:
    @settings(max_examples=60, deadline=None)
    @given(struct_values(struct))
    def check(value: msgspec.Struct) -> None:
        wire = to_proto(value).SerializeToString()
        message = getattr(types_pb2, struct.__name__).FromString(wire)
        assert from_proto(struct, message) == value

    check()


@pytest.mark.parametrize("struct", ROOTS, ids=lambda s: s.__name__)
def test_round_trip_through_storage(struct: type[msgspec.Struct]) -> None:
    @settings(max_examples=30, deadline=None)
    @given(struct_values(struct))
    def check(value: msgspec.Struct) -> None:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=struct) == value

    check()


def test_defaults_that_the_wire_does_not_share_are_written() -> None:
    spec = from_proto(model.ClusterSpec, to_proto(model.ClusterSpec()))
    assert spec == model.ClusterSpec()


def test_a_default_spec_arrives_with_its_numbers() -> None:
    """Whoever reads the message without our model sees what holds, not zeros."""
    assert to_proto(model.Cluster(id="c")).spec.task_history_limit == model.ClusterSpec().task_history_limit

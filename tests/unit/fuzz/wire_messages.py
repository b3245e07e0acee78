"""Messages of any type with anything in them that protobuf allows: unknown enum numbers, NaN, the ends of time."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

MAX_DEPTH = 4
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31)]),
    FieldDescriptor.CPPTYPE_UINT32: st.sampled_from([0, 1, 2**32 - 1]),
    FieldDescriptor.CPPTYPE_INT64: st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)]),
    FieldDescriptor.CPPTYPE_UINT64: st.sampled_from([0, 1, 2**64 - 1]),
    FieldDescriptor.CPPTYPE_ENUM: st.sampled_from([0, 1, 2, 64, 512, 99, 2**31 - 1, -1]),
}
_FLOATS = st.sampled_from([0.0, 1.5, -1.0, float("nan"), float("inf"), 1e308])
_TEXT = st.sampled_from(["", "a", "web", "n1", "\0", "\n", "ü" * 300, "../..", "{{", "0" * 25])


def messages(kind: type[Message]) -> st.SearchStrategy[Any]:
    """Any message of the type."""
    return _of_descriptor(kind.DESCRIPTOR, 0)


def _of_descriptor(descriptor: Descriptor, depth: int) -> st.SearchStrategy[Any]:
    @st.composite
    def build(draw: st.DrawFn) -> Any:
        message = GetMessageClass(descriptor)()
        fields = [f for f in descriptor.fields if depth < MAX_DEPTH or f.message_type is None]
        if fields:
            for field in draw(st.lists(st.sampled_from(fields), max_size=4, unique_by=lambda f: f.name)):
                _set(draw, message, field, depth)
        return message

    return build()


def _set(draw: st.DrawFn, message: Any, field: FieldDescriptor, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _set_map(draw, message, field, depth)
    elif field.is_repeated:
        values = [draw(_value(field, depth)) for _ in range(draw(st.integers(0, 2)))]
        getattr(message, field.name).extend(values)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(draw(_value(field, depth)))
    else:
        setattr(message, field.name, draw(_value(field, depth)))


def _set_map(draw: st.DrawFn, message: Any, field: FieldDescriptor, depth: int) -> None:
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    if value.message_type is None:
        getattr(message, field.name)[draw(_value(key, depth))] = draw(_value(value, depth))


def _value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return _of_descriptor(field.message_type, depth + 1)
    if field.cpp_type in _INTEGERS:
        return _INTEGERS[field.cpp_type]
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return _FLOATS
    return st.binary(max_size=40) if field.type == FieldDescriptor.TYPE_BYTES else _TEXT

"""Between the model (frozen structs) and the wire (protobuf), by reflection.

A struct and its message have the same name and the same fields; `tests/unit/common/test_codec.py` holds them together.
One converter per field is compiled at first use, so that a call only walks the fields that are set.

Two types differ on purpose: a time is `float` unix seconds here and `google.protobuf.Timestamp` there (unset is 0.0),
and an absent sub-message reads as the struct's default.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pyswarm.v1 import types_pb2

S = TypeVar("S", bound=msgspec.Struct)
M = TypeVar("M", bound=Message)

_NANOS = 1_000_000_000
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_Setter = Callable[[Message, Any], None]
_Getter = Callable[[Any], Any]


def to_proto(value: msgspec.Struct) -> Any:
    """The message of the same name with the same content."""
    message = _message_type(type(value))()
    _fill(value, message)
    return message


def from_proto(struct_type: type[S], message: Message) -> S:
    """The struct of that type with the message's content. Unknown enum numbers, and times that no calendar has, raise
    ValueError: what is taken in can always be told again."""
    unset, getters = _getters(struct_type)
    kwargs = unset.copy()
    for field, value in message.ListFields():
        name = field.name
        getter = getters[name]
        kwargs[name] = value if getter is None else getter(value)
    return struct_type(**kwargs)


def _fill(value: msgspec.Struct, message: Message) -> None:
    for name, default, setter in _setters(type(value)):
        item = getattr(value, name)
        if item is not default and item != default:
            if setter is None:
                setattr(message, name, item)
            else:
                setter(message, item)


@functools.cache
def _message_type(struct_type: type) -> Callable[[], Message]:
    return typing.cast(Callable[[], Message], getattr(types_pb2, struct_type.__name__))


@functools.cache
def _fields(struct_type: type) -> tuple[tuple[str, Any, Any, FieldDescriptor], ...]:
    """(name, annotation without `| None`, default, protobuf field) of every field."""
    hints = typing.get_type_hints(struct_type)
    descriptor = getattr(types_pb2, struct_type.__name__).DESCRIPTOR
    out = []
    for field in msgspec.structs.fields(struct_type):
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        out.append((field.name, _without_none(hints[field.name]), default, descriptor.fields_by_name[field.name]))
    return tuple(out)


def _without_none(annotation: Any) -> Any:
    if isinstance(annotation, types.UnionType):
        (only,) = [arg for arg in typing.get_args(annotation) if arg is not types.NoneType]
        return only
    return annotation


@functools.cache
def _setters(struct_type: type) -> tuple[tuple[str, Any, _Setter | None], ...]:
    """(name, what need not be written, how to write) of every field; None: by plain assignment."""
    out = []
    for name, annotation, default, field in _fields(struct_type):
        # What must be written even when it equals the struct's default: nothing, unless protobuf's default differs.
        omitted = default if _is_wire_default(default) else msgspec.NODEFAULT
        out.append((name, omitted, _setter(name, annotation, field)))
    return tuple(out)


def _is_wire_default(default: Any) -> bool:
    """Whether a field left out on the wire reads back as this default."""
    if isinstance(default, msgspec.Struct):
        return all(_is_wire_default(getattr(default, name)) for name in default.__struct_fields__)
    return default is None or default in (0, 0.0, "", b"", (), {}, False)


@functools.cache
def _getters(struct_type: type) -> tuple[dict[str, Any], dict[str, _Getter | None]]:
    """What the wire means by leaving a field out, where that is not the struct's default; and how a field that is there
    is read, by name. None: as it is."""
    unset: dict[str, Any] = {}
    getters: dict[str, _Getter | None] = {}
    for name, annotation, default, field in _fields(struct_type):
        getter = getters[name] = _getter(annotation, field)
        if field.message_type is None and not field.has_presence and not _is_repeated(annotation):
            value = field.default_value
            absent = value if getter is None else getter(value)
            if absent != default:
                unset[name] = absent
        elif _is_repeated(annotation) and default not in ((), {}):
            unset[name] = typing.get_origin(annotation)()
    return unset, getters


def _is_repeated(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (dict, tuple)


def _is_timestamp(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == "google.protobuf.Timestamp"


def _setter(name: str, annotation: Any, field: FieldDescriptor) -> _Setter | None:
    if _is_timestamp(field):
        return lambda message, value: set_timestamp(getattr(message, name), value)
    if typing.get_origin(annotation) is dict:
        return lambda message, value: getattr(message, name).update(value)
    if typing.get_origin(annotation) is tuple:
        if field.message_type is None:
            return lambda message, value: getattr(message, name).extend(value)
        return functools.partial(_add_messages, name)
    if field.message_type is not None:
        return functools.partial(_set_message, name)
    return None


def _add_messages(name: str, message: Message, values: tuple[msgspec.Struct, ...]) -> None:
    repeated = getattr(message, name)
    for value in values:
        _fill(value, repeated.add())


def _set_message(name: str, message: Message, value: msgspec.Struct) -> None:
    part = getattr(message, name)
    part.SetInParent()
    _fill(value, part)


def _getter(annotation: Any, field: FieldDescriptor) -> _Getter | None:
    if _is_timestamp(field):
        return timestamp
    if typing.get_origin(annotation) is dict:
        return dict
    if typing.get_origin(annotation) is tuple:
        item_type = typing.get_args(annotation)[0]
        if _is_enum(item_type):
            return lambda values: tuple([item_type(value) for value in values])
        if field.message_type is None:
            return tuple
        return lambda values: tuple([from_proto(item_type, item) for item in values])
    if field.message_type is not None:
        return functools.partial(from_proto, annotation)
    return annotation if _is_enum(annotation) else None


def _is_enum(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, IntEnum)


def set_timestamp(target: Any, unix_s: float) -> None:
    """Write unix seconds into a google.protobuf.Timestamp."""
    target.seconds, target.nanos = divmod(round(unix_s * _NANOS), _NANOS)


def timestamp(source: Any) -> float:
    """Unix seconds of a google.protobuf.Timestamp. Raises ValueError outside of the years 1 to 9999."""
    if not (_FIRST_SECOND <= source.seconds <= _LAST_SECOND and 0 <= source.nanos < _NANOS):
        raise ValueError(f"{source.seconds} s and {source.nanos} ns is no time")
    return float(source.seconds) + float(source.nanos) / _NANOS

"""The form of a finding, and the checks that every kind of object shares."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec
from google.protobuf.message import Message

from pyswarm_common.codec import from_proto
from pyswarm_common.errors import InvalidArgument

S = TypeVar("S", bound=msgspec.Struct)

Violation = tuple[str, str]
"""(path of the field, one sentence)."""

MAX_NAME_LENGTH = 63
MAX_TEXT_LENGTH = 4096
MAX_LABELS = 1024
MAX_DURATION_S = 10 * 365 * 24 * 3600.0
_NAMES_IN_MESSAGE = 5
_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9_-]*[a-zA-Z0-9])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def decode(struct_type: type[S], message: Message) -> S:
    """The struct that the message holds; InvalidArgument for a number that is in no enumeration."""
    try:
        return from_proto(struct_type, message)
    except ValueError as error:
        raise InvalidArgument(f"the request holds a value this version does not know: {error}") from error


def refuse(violations: Iterable[Violation]) -> None:
    """Raise InvalidArgument that names every violation; do nothing if there is none."""
    found = tuple(violations)
    if not found:
        return
    sentences = list(dict.fromkeys(sentence for _, sentence in found))
    message = "; ".join(sentences[:_NAMES_IN_MESSAGE])
    if len(sentences) > _NAMES_IN_MESSAGE:
        message += f"; and {len(sentences) - _NAMES_IN_MESSAGE} more"
    raise InvalidArgument(message, found)


def under(path: str, violations: Iterable[Violation]) -> Iterator[Violation]:
    """The same violations, one level further down."""
    for field, sentence in violations:
        yield f"{path}.{field}" if field else path, sentence


def each(path: str, index: int, violations: Iterable[Violation]) -> Iterator[Violation]:
    """The violations of one item of a list."""
    return under(f"{path}[{index}]", violations)


def check_name(name: str) -> Iterator[Violation]:
    """A name of a service or a network: a DNS label, as docker wants it."""
    if not name:
        yield "name", "name must be provided"
    elif len(name) > MAX_NAME_LENGTH:
        yield "name", f"name must be {MAX_NAME_LENGTH} characters or fewer"
    elif _NAME.fullmatch(name) is None:
        yield "name", f"name must be valid as a DNS name component: {shown(name)}"


def check_labels(labels: Mapping[str, str], path: str = "labels") -> Iterator[Violation]:
    if len(labels) > MAX_LABELS:
        yield path, f"{len(labels)} labels are too many: {MAX_LABELS} at most"
    for key, value in labels.items():
        if not key or key != key.strip() or "=" in key or _CONTROL.search(key):
            yield path, f"invalid label name {shown(key)}: it must be non-empty, without '=' and surrounding space"
        elif len(key) > MAX_TEXT_LENGTH or len(value) > MAX_TEXT_LENGTH:
            yield path, f"label {shown(key)} is too long: {MAX_TEXT_LENGTH} characters at most"


def check_duration(value: float | None, path: str, name: str) -> Iterator[Violation]:
    """A number of seconds that can be waited for; unset is fine."""
    if value is None:
        return
    if math.isnan(value) or value > MAX_DURATION_S:
        yield path, f"{name} must be a duration of at most ten years"
    elif value < 0:
        yield path, f"{name} cannot be negative"


def check_text(value: str, path: str, name: str) -> Iterator[Violation]:
    """Text that becomes an argument or a file name on a host."""
    if "\x00" in value:
        yield path, f"{name} must not hold a zero byte"
    elif len(value) > MAX_TEXT_LENGTH:
        yield path, f"{name} is too long: {MAX_TEXT_LENGTH} characters at most"


def check_count(items: Sequence[object], limit: int, path: str, name: str) -> Iterator[Violation]:
    if len(items) > limit:
        yield path, f"{len(items)} {name} are too many: {limit} at most"


def shown(text: str) -> str:
    """The text in quotes, short and printable."""
    return repr(text if len(text) <= MAX_NAME_LENGTH + 1 else text[:MAX_NAME_LENGTH] + "…")

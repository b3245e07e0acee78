"""Lists: filters, pages and references, over a view that does not change meanwhile. Pure.

A page is bounded by count and by bytes, so that no list outgrows a message; objects come ordered by id, and the token
of the next page is the last id given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message

from pyswarm.v1 import control_pb2
from pyswarm_common.model import Config, Network, Node, Secret, Service, Task

T = TypeVar("T", Node, Service, Task, Network, Secret, Config)

MAX_PAGE = 1_000
MAX_PAGE_BYTES = 8 << 20


def name_of(item: Node | Service | Task | Network | Secret | Config) -> str:
    """What a user calls the object."""
    match item:
        case Node():
            return item.description.hostname
        case Task():
            return item.name
        case Service() | Network() | Secret() | Config():
            return item.spec.name


def labels_of(item: Node | Service | Task | Network | Secret | Config) -> Mapping[str, str]:
    return item.labels if isinstance(item, Task) else item.spec.labels


def select(table: Mapping[str, T], options: control_pb2.ListOptions, wanted: Callable[[T], bool]) -> Iterator[T]:
    """Those that pass every filter, after the page token, ordered by id."""
    ids, names = tuple(options.ids), tuple(options.names)
    labels = [label.partition("=") for label in options.labels]
    after = options.page_token
    for object_id in sorted(table):
        if object_id <= after:
            continue
        item = table[object_id]
        if ids and not object_id.startswith(ids):
            continue
        if names and not name_of(item).startswith(names):
            continue
        if labels and not _has_label(labels_of(item), labels):
            continue
        if wanted(item):
            yield item


def _has_label(have: Mapping[str, str], wanted: list[tuple[str, str, str]]) -> bool:
    return any(key in have and (not equals or have[key] == value) for key, equals, value in wanted)


def fill_page(
    items: Iterable[T], options: control_pb2.ListOptions, into: Any, convert: Callable[[T], Message]
) -> tuple[list[T], str]:
    """Append one page of messages; returns its objects and the token of the next page (empty after the last)."""
    limit = min(options.page_size or MAX_PAGE, MAX_PAGE)
    page: list[T] = []
    size = 0
    for item in items:
        if len(page) >= limit or size >= MAX_PAGE_BYTES:
            return page, page[-1].id
        message = convert(item)
        size += message.ByteSize()
        into.append(message)
        page.append(item)
    return page, ""

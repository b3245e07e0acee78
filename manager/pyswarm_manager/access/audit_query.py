"""Questions to the audit log: which records, in which order, how they look on the wire. Pure.

Records come oldest first; a page is bounded by count, and the next one begins after its last index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Final

from pyswarm.v1 import access_pb2
from pyswarm_common.codec import set_timestamp, timestamp
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model.audit import AuditRecord, AuditTarget

MAX_PAGE: Final = 1_000
MAX_FILTER_VALUES: Final = 100
_ACTOR_KINDS: Final = {
    "local": access_pb2.AuditRecord.ACTOR_KIND_LOCAL,
    "certificate": access_pb2.AuditRecord.ACTOR_KIND_CERTIFICATE,
    "token": access_pb2.AuditRecord.ACTOR_KIND_TOKEN,
    "node": access_pb2.AuditRecord.ACTOR_KIND_NODE,
    "machine": access_pb2.AuditRecord.ACTOR_KIND_MACHINE,
}


def page(
    records: Sequence[AuditRecord], request: access_pb2.ListAuditRecordsRequest
) -> access_pb2.ListAuditRecordsResponse:
    """The records that the request asks for."""
    wanted = record_filter(request.filter)
    limit = min(request.page_size or MAX_PAGE, MAX_PAGE)
    response = access_pb2.ListAuditRecordsResponse(first_index=records[0].index if records else 0)
    for record in after(records, request.after_index):
        if not wanted(record):
            continue
        if len(response.records) >= limit:
            response.more = True
            break
        response.records.append(to_message(record))
    return response


def after(records: Sequence[AuditRecord], index: int) -> Sequence[AuditRecord]:
    """Those after that index; looks at no others, since a watcher asks at every change."""
    found = list(takewhile(lambda record: record.index > index, reversed(records)))
    found.reverse()
    return found


def record_filter(wanted: access_pb2.AuditFilter) -> Callable[[AuditRecord], bool]:
    """Whether a record passes."""
    lists = (wanted.actors, wanted.methods, wanted.kinds, wanted.objects)
    if any(len(values) > MAX_FILTER_VALUES for values in lists):
        raise InvalidArgument(f"at most {MAX_FILTER_VALUES} values of each filter")
    since = timestamp(wanted.since) if wanted.HasField("since") else 0.0
    until = timestamp(wanted.until) if wanted.HasField("until") else float("inf")
    actors, methods = frozenset(wanted.actors), frozenset(wanted.methods)
    kinds, objects = frozenset(wanted.kinds), tuple(wanted.objects)

    def passes(record: AuditRecord) -> bool:
        return (
            since <= record.time <= until
            and (not actors or not actors.isdisjoint((record.actor, record.credential_id, record.actor_kind)))
            and (not methods or not methods.isdisjoint((record.method, record.method.rpartition("/")[2])))
            and (not kinds or any(target.kind in kinds for target in record.targets))
            and (not objects or any(_is_one_of(target, objects) for target in record.targets))
        )

    return passes


def _is_one_of(target: AuditTarget, references: tuple[str, ...]) -> bool:
    return target.name in references or target.id.startswith(references)


def to_message(record: AuditRecord) -> access_pb2.AuditRecord:
    message = access_pb2.AuditRecord(
        index=record.index,
        actor_kind=_ACTOR_KINDS.get(record.actor_kind, access_pb2.AuditRecord.ACTOR_KIND_UNSPECIFIED),
        actor=record.actor,
        credential_id=record.credential_id,
        role=record.role,
        source=record.source,
        manager_id=record.manager_id,
        method=record.method,
        detail=record.detail,
    )
    set_timestamp(message.time, record.time)
    for target in record.targets:
        message.targets.add(kind=target.kind, id=target.id, name=target.name, action=target.action)
    return message

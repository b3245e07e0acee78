"""`pyswarm events`: what happens to the swarm's objects; with --audit, who changed what."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import click

from pyswarm.v1 import access_pb2, watch_pb2
from pyswarm_cli.connection import Connection, answers, call, connect, stream
from pyswarm_cli.failures import FromDaemon
from pyswarm_cli.output.rows import Row
from pyswarm_cli.params import filter_option, filters
from pyswarm_cli.parse.moments import moment
from pyswarm_cli.views import events as events_view
from pyswarm_common.codec import set_timestamp
from pyswarm_common.errors import InvalidArgument

_AUDIT_FILTERS = ("actor", "method", "type", "object")
_EVENT_FILTERS = ("type", "action", "service")


@click.command(
    help="Show what happens in the swarm, from now on, until interrupted. With --audit: who changed what, from the log "
    "that the managers keep of it."
)
@click.option("--audit", is_flag=True, help="The audit log: who, what, from where, at which index")
@click.option("-F", "--follow", is_flag=True, help="With --audit: go on with what comes")
@click.option("--since", default="", help="With --audit: a duration (10m, 7d), unix seconds, or a date and time")
@click.option("--until", default="", help="End there: a duration ago, unix seconds, or a date and time")
@filter_option
@click.option("--format", "format_", metavar="FORMAT", default="", help='"json", or a Go-style template')
@click.pass_context
def events(
    ctx: click.Context, audit: bool, follow: bool, since: str, until: str, filter_: tuple[str, ...], format_: str
) -> None:
    """`events`."""
    now = time.time()
    if audit:
        wanted = _audit_filter(filters(filter_, _AUDIT_FILTERS), since, until, now)
        rows = _audit_rows(connect(ctx), wanted, follow=follow)
        _print(rows, format_, events_view.audit_line)
        return
    if since or follow:
        raise InvalidArgument("events are shown from now on: --since and --follow belong to --audit")
    end = moment(until, now) if until else None
    rows = _event_rows(connect(ctx), filters(filter_, _EVENT_FILTERS), end)
    _print(rows, format_, events_view.event_line)


def _print(rows: Iterable[Row], format_: str, line: Any) -> None:
    template = None
    if format_ not in ("", "json"):
        from pyswarm_cli.output.templates import Template  # noqa: PLC0415 - plain lists do not wait for its import

        template = Template(format_)
    for row in rows:
        if template is not None:
            text = template.render(row)
        else:
            text = json.dumps(row, separators=(",", ":")) if format_ == "json" else line(row)
        click.echo(text)
        sys.stdout.flush()


def _audit_filter(wanted: dict[str, list[str]], since: str, until: str, now: float) -> Any:
    out = access_pb2.AuditFilter(
        actors=wanted.get("actor", []),
        methods=wanted.get("method", []),
        kinds=wanted.get("type", []),
        objects=wanted.get("object", []),
    )
    if since:
        set_timestamp(out.since, moment(since, now))
    if until:
        set_timestamp(out.until, moment(until, now))
    return out


def _audit_rows(connection: Connection, wanted: Any, *, follow: bool) -> Iterator[Row]:
    request = access_pb2.ListAuditRecordsRequest(filter=wanted)
    while True:
        page = call(connection.access.ListAuditRecords, request)
        for record in page.records:
            request.after_index = record.index
            yield events_view.audit_row(record)
        if not page.more:
            break
    if not follow:
        return
    watched = access_pb2.WatchAuditRecordsRequest(after_index=request.after_index, filter=wanted)
    for news in answers(stream(connection.access.WatchAuditRecords, watched)):
        yield from map(events_view.audit_row, news.records)


def _event_rows(connection: Connection, wanted: dict[str, list[str]], end: float | None) -> Iterator[Row]:
    """Until `end`, or for ever."""
    unknown = [kind for kind in wanted.get("type", []) if kind not in events_view.KINDS]
    if unknown:
        raise InvalidArgument(f'unknown type "{unknown[0]}": there are {", ".join(events_view.KINDS)}')
    request: Any = watch_pb2.WatchRequest(
        kinds=[events_view.KINDS[kind] for kind in wanted.get("type", [])],  # type: ignore[misc]
        service_ids=_service_ids(connection, wanted.get("service", [])),
    )
    if end is not None and end <= time.time():
        return
    timeout = None if end is None else end - time.time()
    try:
        for message in answers(connection.watch.Watch(request, timeout=timeout)):
            now = time.time()
            rows = (events_view.event_row(event, now) for event in message.events)
            yield from (row for row in rows if row["Action"] in wanted.get("action", [row["Action"]]))
    except FromDaemon as error:
        if error.status != "DEADLINE_EXCEEDED":
            raise


def _service_ids(connection: Connection, names: list[str]) -> list[str]:
    from pyswarm.v1 import control_pb2  # noqa: PLC0415 - only for this filter

    requests = (control_pb2.GetServiceRequest(service=name) for name in names)
    return [call(connection.control.GetService, request).service.id for request in requests]

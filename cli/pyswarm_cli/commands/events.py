"""`pyswarm events`: what happens to the swarm's objects; with --audit, who changed what."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import click

from pyswarm.v1 import access_pb2
from pyswarm_cli.connection import Connection, answers, call, connect, stream
from pyswarm_cli.failures import FromDaemon
from pyswarm_cli.output.rows import Row
from pyswarm_cli.params import filter_option, filters
from pyswarm_cli.parse.moments import moment
from pyswarm_cli.views import events as events_view
from pyswarm_common.codec import set_timestamp
from pyswarm_common.errors import InvalidArgument

_AUDIT_FILTERS = ("actor", "method", "type", "object")
_VERSION = re.compile(r"v([1-9]\d{0,18})|([1-9]\d{0,8})")


@click.command(
    help="Show what happens in the swarm, until interrupted: from now on, or (--since) from a time or a version that "
    "an event named. With --audit: who changed what, from the log that the managers keep of it."
)
@click.option("--audit", is_flag=True, help="The audit log: who, what, from where, at which index")
@click.option("-F", "--follow", is_flag=True, help="With --audit: go on with what comes")
@click.option(
    "--since",
    metavar="VERSION|TIME",
    default="",
    help="A version (v4711), a duration (10m, 7d), unix seconds, or a date and time",
)
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
    if follow:
        raise InvalidArgument("events are followed anyway: --follow belongs to --audit")
    from pyswarm_cli.event_stream import event_rows  # noqa: PLC0415 - the audit log does without

    connection = connect(ctx)
    wanted = _wanted(connection, filters(filter_, events_view.FILTERS), since, until, now)
    _print(event_rows(connection, wanted), format_, events_view.event_line)


def _print(rows: Iterable[Row], format_: str, line: Any) -> None:
    template = None
    if format_ not in ("", "json"):
        from pyswarm_common.templates import Template  # noqa: PLC0415 - plain lists do not wait for its import

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


def _wanted(connection: Connection, filter_: dict[str, list[str]], since: str, until: str, now: float) -> Any:
    from pyswarm_cli.event_stream import Wanted  # noqa: PLC0415 - the audit log does without

    kinds = filter_.get("type", [])
    unknown = [kind for kind in kinds if kind not in events_view.KINDS]
    if unknown:
        raise InvalidArgument(f'unknown type "{unknown[0]}": there are {", ".join(events_view.KINDS)}')
    node_ids = _node_ids(connection, filter_.get("node", []))
    version = _version(since)
    return Wanted(
        kinds=tuple(kinds),
        since_version=version or 0,
        since_time=moment(since, now) if since and not version else None,
        until=moment(until, now) if until else None,
        passes=lambda row: events_view.passes(row, filter_, node_ids),
    )


def _version(since: str) -> int | None:
    """ "v4711", or a number too small to be unix seconds of this century."""
    match = _VERSION.fullmatch(since)
    return int(match.group(1) or match.group(2)) if match else None


def _node_ids(connection: Connection, names: list[str]) -> dict[str, str]:
    """Those that are nodes now; events may name others, by id."""
    from pyswarm_cli.nodes import get_node  # noqa: PLC0415 - only for this filter

    found = {}
    for name in names:
        with contextlib.suppress(FromDaemon):
            found[name] = str(get_node(connection, name).id)
    return found

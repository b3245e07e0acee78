"""`pyswarm service logs`."""

from __future__ import annotations

import re
import sys
import time
from typing import Any

import click

from pyswarm.v1 import logs_pb2
from pyswarm_cli.connection import answers, connect, stream
from pyswarm_cli.output.words import iso_time
from pyswarm_cli.parse.quantities import duration_s
from pyswarm_common.codec import set_timestamp, timestamp
from pyswarm_common.errors import InvalidArgument

_TAIL = re.compile(r"\d{1,9}")


@click.command(help="Show what the containers of a service or a task write.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on")
@click.option("-n", "--tail", default="all", help="Lines of each task from the end [all]")
@click.option("-t", "--timestamps", is_flag=True, help="Show when")
@click.option("--since", default="", help="Only what is newer: a duration (10m) or unix seconds")
@click.option("--no-task-ids", is_flag=True, help="Do not show ids of tasks")
@click.option("--raw", is_flag=True, help="Only the lines themselves")
@click.argument("target", metavar="SERVICE|TASK")
@click.pass_context
def logs(
    ctx: click.Context,
    follow: bool,
    tail: str,
    timestamps: bool,
    since: str,
    no_task_ids: bool,
    raw: bool,
    target: str,
) -> None:
    """`service logs`."""
    request = logs_pb2.ReadLogsRequest(target=target, follow=follow)
    if tail != "all":
        if not _TAIL.fullmatch(tail):
            raise InvalidArgument(f'invalid value "{tail}" for --tail: write a number or "all"')
        request.tail = int(tail)
    if since:
        set_timestamp(request.since, _moment(since, time.time()))
    connection = connect(ctx)
    for message in answers(stream(connection.logs.ReadLogs, request)):
        _write(message, timestamps, no_task_ids, raw)


def _moment(text: str, now: float) -> float:
    try:
        return float(text)
    except ValueError:
        return now - duration_s(text)


def _write(message: Any, timestamps: bool, no_task_ids: bool, raw: bool) -> None:
    line = message.data if message.data.endswith(b"\n") else message.data + b"\n"
    if message.stream == logs_pb2.LogMessage.STREAM_WARNING:
        click.echo(b"warning: " + line, err=True, nl=False)
        return
    identity = "" if no_task_ids else f".{message.task_id[:12]}"
    prefix = "" if raw else f"{message.task_name}{identity}@{message.node_hostname or message.node_id}    | "
    when = f"{iso_time(timestamp(message.timestamp))} " if timestamps else ""
    to_stderr = message.stream == logs_pb2.LogMessage.STREAM_STDERR
    click.echo(f"{when}{prefix}".encode() + line, err=to_stderr, nl=False)
    if not to_stderr:
        sys.stdout.flush()

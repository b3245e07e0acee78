"""`pyswarm service logs`."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from typing import Any

import click

from pyswarm.v1 import logs_pb2
from pyswarm_cli.connection import answers, connect, stream
from pyswarm_cli.output.words import iso_time
from pyswarm_cli.parse.moments import moment
from pyswarm_common.codec import set_timestamp, timestamp
from pyswarm_common.errors import InvalidArgument

_TAIL = re.compile(r"\d{1,9}")


@click.command(help="Show what the containers of a service or a task write.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on")
@click.option("-n", "--tail", default="all", help="Lines of each task from the end [all]")
@click.option("-t", "--timestamps", is_flag=True, help="Show when")
@click.option("--since", default="", help="Only what is newer: a duration (10m), a date and time, or unix seconds")
@click.option("--details", is_flag=True, help="Show the ids of node, service and task with each line")
@click.option("--no-resolve", is_flag=True, help="Ids in place of names")
@click.option("--no-task-ids", is_flag=True, help="Do not show ids of tasks")
@click.option("--no-trunc", is_flag=True, help="Ids in full")
@click.option("--raw", is_flag=True, help="Only the lines themselves")
@click.argument("target", metavar="SERVICE|TASK")
@click.pass_context
def logs(
    ctx: click.Context,
    follow: bool,
    tail: str,
    timestamps: bool,
    since: str,
    details: bool,
    no_resolve: bool,
    no_task_ids: bool,
    no_trunc: bool,
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
        set_timestamp(request.since, moment(since, time.time()))
    connection = connect(ctx)
    form = Form(timestamps, details, no_resolve, no_task_ids, no_trunc, raw)
    for message in answers(stream(connection.logs.ReadLogs, request)):
        _write(message, form)


@dataclass(frozen=True, slots=True)
class Form:
    """What is shown of each line."""

    timestamps: bool = False
    details: bool = False
    no_resolve: bool = False
    no_task_ids: bool = False
    no_trunc: bool = False
    raw: bool = False

    def prefix(self, message: Any) -> str:
        """Everything before the line itself."""
        when = f"{iso_time(timestamp(message.timestamp))} " if self.timestamps else ""
        return when + ("" if self.raw else f"{self._source(message)}    | ") + self._details(message)

    def _source(self, message: Any) -> str:
        name, node = message.task_name, message.node_hostname or message.node_id
        if self.no_resolve:
            name, node = f"{message.service_id}.{name.rpartition('.')[2]}", message.node_id
        task_id = message.task_id if self.no_trunc else message.task_id[:12]
        return f"{name}@{node}" if self.no_task_ids else f"{name}.{task_id}@{node}"

    def _details(self, message: Any) -> str:
        if not self.details:
            return ""
        ids = (("node", message.node_id), ("service", message.service_id), ("task", message.task_id))
        return ",".join(f"com.docker.swarm.{kind}.id={value}" for kind, value in ids) + " "


def _write(message: Any, form: Form) -> None:
    line = message.data if message.data.endswith(b"\n") else message.data + b"\n"
    if message.stream == logs_pb2.LogMessage.STREAM_WARNING:
        click.echo(b"warning: " + line, err=True, nl=False)
        return
    to_stderr = message.stream == logs_pb2.LogMessage.STREAM_STDERR
    click.echo(form.prefix(message).encode() + line, err=to_stderr, nl=False)
    if not to_stderr:
        sys.stdout.flush()

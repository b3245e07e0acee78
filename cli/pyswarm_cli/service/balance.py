"""Waits until services are rebalanced, and shows how it goes: by watching, never by polling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from pyswarm.v1 import control_pb2, types_pb2, watch_pb2
from pyswarm_cli.connection import Connection, call
from pyswarm_cli.watching import Events, watched


def wait_balanced(connection: Connection, services: Sequence[types_pb2.Service], *, quiet: bool) -> None:
    """Return when the moves of all of them are done."""
    try:
        for service in services:
            _wait(connection, service, quiet=quiet)
    except KeyboardInterrupt:
        click.echo("\nOperation continuing in background.")
        raise


def _wait(connection: Connection, service: types_pb2.Service, *, quiet: bool) -> None:
    def watch(events: Events) -> None:
        found = call(connection.control.GetService, control_pb2.GetServiceRequest(service=service.id)).service
        events.standing()
        _until_over(found, events, quiet=quiet)

    watched(connection, _watch_of(service.id), watch)


def _until_over(service: Any, events: Events, *, quiet: bool) -> None:
    shown = ""
    while True:
        status = service.rebalance_status
        said = f"{service.spec.name}: {status.message or 'asked for'}"
        if said != shown and not quiet:
            click.echo(said)
            shown = said
        if status.state != types_pb2.REBALANCE_STATE_RUNNING:
            return
        for event in events.next(None):
            if event.action == watch_pb2.CHANGE_ACTION_REMOVE and event.HasField("service"):
                return
            if event.HasField("service") and event.service.meta.version > service.meta.version:
                service = event.service


def _watch_of(service_id: str) -> Any:
    return watch_pb2.WatchRequest(kinds=[watch_pb2.OBJECT_KIND_SERVICE], service_ids=[service_id])

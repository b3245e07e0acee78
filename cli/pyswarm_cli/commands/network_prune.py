"""`pyswarm network prune`: one request for each network, so what came into use meanwhile stays."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from pyswarm.v1 import control_pb2
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.failures import FromDaemon
from pyswarm_cli.listing import all_networks
from pyswarm_cli.params import filters
from pyswarm_cli.parse.moments import moment
from pyswarm_common.codec import timestamp
from pyswarm_common.errors import FailedPrecondition, NotFound

WARNING = "WARNING! This will remove all custom networks not used by at least one service or container."
QUESTION = "Are you sure you want to continue? [y/N] "


@click.command(help="Remove all unused networks.")
@click.option("--filter", "filter_", multiple=True, metavar="NAME=VALUE", help="until, label or label! (without it)")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.pass_context
def prune(ctx: click.Context, filter_: tuple[str, ...], force: bool) -> None:
    """`network prune`."""
    wanted = filters(filter_, ("until", "label", "label!"))
    until = min((moment(text, time.time()) for text in wanted.get("until", [])), default=None)
    if not force and not agreed(WARNING):
        return
    connection = connect(ctx)
    gone = [
        network.spec.name
        for network in sorted(all_networks(connection), key=lambda network: network.spec.name)
        if _is_meant(network, wanted, until) and _remove(connection, network.id)
    ]
    if gone:
        click.echo("\n".join(("Deleted Networks:", *gone, "")))


def agreed(warning: str) -> bool:
    """Docker's question. Without a terminal nobody has agreed."""
    click.echo(warning)
    click.echo(QUESTION, nl=False)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        click.echo()
    return answer.strip().lower() in ("y", "yes")


def _is_meant(network: Any, wanted: dict[str, list[str]], until: float | None) -> bool:
    labels = dict(network.spec.labels)
    if network.spec.ingress or (until is not None and timestamp(network.meta.created_at) >= until):
        return False
    has_all = all(_has(labels, text) for text in wanted.get("label", []))
    return has_all and not any(_has(labels, text) for text in wanted.get("label!", []))


def _has(labels: dict[str, str], text: str) -> bool:
    key, equals, value = text.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _remove(connection: Connection, network_id: str) -> bool:
    """Whether it is gone now; not if it is used."""
    try:
        call(connection.control.RemoveNetwork, control_pb2.RemoveNetworkRequest(network=network_id))
    except FromDaemon as error:
        if isinstance(error.refusal, FailedPrecondition | NotFound):
            return False
        raise
    return True

"""`pyswarm restore FILE`: verifies the backup, says what will be, asks, and sends it to the daemon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import click

from pyswarm.v1 import health_pb2, node_pb2
from pyswarm_cli.backup.old_managers import answers_elsewhere, check_silent
from pyswarm_cli.backup.secret_input import key_for
from pyswarm_cli.confirmation import confirm, yes_option
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.failures import FromDaemon, one_line
from pyswarm_cli.output.words import ago, iso_time
from pyswarm_cli.params import AVAILABILITY
from pyswarm_cli.views.backups import objects
from pyswarm_common.backup.container import Header, Reader, Summary
from pyswarm_common.errors import FailedPrecondition, InvalidArgument, PyswarmError
from pyswarm_common.model import Availability

_CHUNK = 1 << 20
_RESTORE_S = 1800.0


@click.command(help="Make this machine the only manager of the swarm in a backup, as it was when the backup was made.")
@click.option("--key-file", metavar="FILE", default="", help="The backup key or passphrase is this file's first line")
@click.option("--advertise-addr", default="", help="Address the other nodes reach this one at: IP[:port] or interface")
@click.option(
    "--listen-addr", default="", help="Address to listen on: IP[:port], [IPv6]:port or interface (default 0.0.0.0:2377)"
)
@click.option("--data-path-addr", default="", help="Address or interface for the traffic of containers")
@click.option("--availability", type=AVAILABILITY, default="active", show_default=True)
@click.option("-f", "--force", is_flag=True, help="Although something answers where the managers of the backup were")
@yes_option
@click.argument("file", metavar="FILE")
@click.pass_context
def restore(
    ctx: click.Context,
    key_file: str,
    advertise_addr: str,
    listen_addr: str,
    data_path_addr: str,
    availability: str,
    force: bool,
    yes: bool,
    file: str,
) -> None:
    """`restore`."""
    connection = connect(ctx)
    info = call(connection.daemon.GetInfo, node_pb2.GetInfoRequest())
    header, summary, key = _verified(file, key_file, info)
    if info.cluster_id:
        _check_lost(connection, has_addresses=bool(advertise_addr or listen_addr or data_path_addr))
    elif not force:
        check_silent(summary.managers, answers_elsewhere)
    click.echo("\n".join(_plan(file, header, summary, in_place=bool(info.cluster_id))), err=True)
    confirm("a restore", yes=yes)
    addresses = node_pb2.InitRequest(
        advertise_addr=advertise_addr,
        listen_addr=listen_addr,
        data_path_addr=data_path_addr,
        availability=Availability[availability.upper()].value,  # type: ignore[arg-type]  # the same numbers
    )
    requests = _requests(file, node_pb2.RestoreHeader(addresses=addresses, key=key))
    made = call(connection.daemon.Restore, requests, _RESTORE_S)
    click.echo(
        f"Swarm {made.cluster_id} restored: current node ({made.node_id}) is its manager, at {made.manager_address}.\n"
        "Other machines join with the tokens of before: `pyswarm join-token worker` (or manager) shows them."
    )


def _check_free(info: node_pb2.GetInfoResponse, header: Header) -> None:
    """A machine in no swarm, or in the backup's own: the daemon sees whether that one is lost."""
    if info.cluster_id and info.cluster_id != header.cluster_id:
        raise FailedPrecondition(
            'This node is already part of a swarm, and not of the backup\'s. Use "pyswarm leave" to leave it first.'
        )


def _check_lost(connection: Connection, *, has_addresses: bool) -> None:
    """What the daemon would refuse in the backup's own swarm, before the plan is shown. It looks again."""
    if has_addresses:
        raise InvalidArgument("this node is part of a swarm and keeps its addresses: leave out the address flags")
    try:
        health = call(connection.health.GetHealth, health_pb2.GetHealthRequest())
    except (FromDaemon, PyswarmError):
        return  # its manager says nothing: that is what a restore is for
    if health.leader_raft_id:
        raise FailedPrecondition(
            "this swarm has a leader, so there is nothing to restore: to go back to a backup, let every node leave the "
            "swarm first"
        )


def _verified(file: str, key_file: str, info: node_pb2.GetInfoResponse) -> tuple[Header, Summary, bytes]:
    """The whole file is read with the key before anything is asked."""
    with Path(file).open("rb") as source:
        reader = Reader(source)
        _check_free(info, reader.header)
        key = key_for(reader.header, key_file)
        summary = reader.summary(key)
        for _ in reader.pieces():
            pass
    return reader.header, summary, key


def _requests(file: str, header: node_pb2.RestoreHeader) -> Iterator[node_pb2.RestoreRequest]:
    yield node_pb2.RestoreRequest(header=header)
    with Path(file).open("rb") as source:
        while part := source.read(_CHUNK):
            yield node_pb2.RestoreRequest(data=part)


def _plan(file: str, header: Header, summary: Summary, *, in_place: bool) -> list[str]:
    made = f"{iso_time(header.created_at)} ({ago(header.created_at, time.time())})"
    own = [
        "  Here:   this machine stays the node it is, containers that the backup knows of run on. What its manager",
        "          has on disk now is given up: with that, `pyswarm init --force-new-cluster` loses less.",
    ]
    return [
        f"{file} is whole: swarm {one_line(header.cluster_id)} as of {made}, index {header.index}.",
        f"This machine becomes its only manager, with {objects(header.counts)}.",
        "  Stays:  the swarm's id, root certificate, join tokens, services, networks, nodes and people's access.",
        f"  Lost:   whatever was changed after {iso_time(header.created_at)}.",
        *(own if in_place else ()),
        "  Dropped from the managers:",
        *(f"          {one_line(m.hostname)} {one_line(m.address)} {one_line(m.node_id)}" for m in summary.managers),
        "          If one of them still runs, let it leave the swarm (`pyswarm leave --force`) first: managers of",
        "          one swarm that do not know of each other do harm. Then it may join again.",
        "  Workers come back by themselves if this machine has an address at which they know a manager; the",
        "          others must leave and join again.",
    ]

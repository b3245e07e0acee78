"""`pyswarm operator …`: what who runs the managers wants to know of them, and can tell them."""

from __future__ import annotations

import time
from typing import Any

import click

from pyswarm.v1 import operator_pb2 as pb
from pyswarm_cli.connection import call, connect
from pyswarm_cli.failures import Silent
from pyswarm_cli.output.rows import show, show_objects
from pyswarm_cli.params import format_option
from pyswarm_cli.views import operator as view

_SLOW_CALL_S = 60.0


@click.command(help="List the members of Raft, as the leader sees them.")
@format_option
@click.pass_context
def list_peers(ctx: click.Context, format_: str) -> None:
    """`operator raft list-peers`."""
    found = call(connect(ctx).operator.ListPeers, pb.ListPeersRequest())
    members = sorted(found.peers, key=lambda member: (member.hostname, member.raft_id))
    click.echo(show([view.peer(member) for member in members], view.PEERS, format_), nl=False)


@click.command(help="Show the state of Raft on this manager; also without a leader.")
@click.option("-f", "--format", "format_", metavar="FORMAT", default="", help="json, or a Go-style template")
@click.pass_context
def raft_state(ctx: click.Context, format_: str) -> None:
    """`operator raft state`."""
    facts = view.raft_state(call(connect(ctx).operator.GetRaftState, pb.GetRaftStateRequest()))
    if format_:
        click.echo(show_objects([facts], format_), nl=False)
        return
    for line in view.raft_state_lines(facts):
        click.echo(line)


@click.command(help="Hand leadership to NODE, or to the manager that has most of the log. Waits until it leads.")
@click.argument("node", required=False)
@click.pass_context
def transfer_leadership(ctx: click.Context, node: str | None) -> None:
    """`operator raft transfer-leadership`."""
    if node == "":
        raise click.UsageError("the name of the node is empty: leave it out for whoever has most of the log")
    connection = connect(ctx)
    if node == "self":
        node = call(connection.operator.GetRaftState, pb.GetRaftStateRequest()).node_id
    request = pb.TransferLeadershipRequest(node=node or "")
    found = call(connection.operator.TransferLeadership, request, _SLOW_CALL_S)
    click.echo(f"{view.name_of(found)} {'leads already' if found.unchanged else 'leads now'}.")


@click.command(help="Show what this manager's store holds: objects and bytes of each kind, its index and digest.")
@click.option("--objects", "kind", metavar="KIND", default="", help="List the objects of this kind, largest first")
@click.option("--limit", type=click.IntRange(1, 20_000), default=1_000, show_default=True, help="List at most so many")
@format_option
@click.pass_context
def store_inspect(ctx: click.Context, kind: str, limit: int, format_: str) -> None:
    """`operator store inspect`."""
    request = pb.InspectStoreRequest(kind=kind, limit=limit)
    found = call(connect(ctx).operator.InspectStore, request, _SLOW_CALL_S)
    if kind:
        now = time.time()
        click.echo(show([view.stored(item, now) for item in found.objects], view.OBJECTS, format_), nl=False)
        return
    if not format_:
        click.echo(f"Index: {found.index}\nDigest: {found.digest}\n")
    click.echo(show([view.kind(item) for item in found.kinds], view.KINDS, format_), nl=False)


@click.command(help="Compare what the managers hold, at one index. Fails if any two differ. Writes go on meanwhile.")
@format_option
@click.pass_context
def check(ctx: click.Context, format_: str) -> None:
    """`operator check`."""
    found = call(connect(ctx).operator.CheckReplicas, pb.CheckReplicasRequest(), _SLOW_CALL_S)
    agreed = view.agreed_digest(found.replicas)
    click.echo(show([view.replica(item, agreed) for item in found.replicas], view.REPLICAS, format_), nl=False)
    if not format_:
        click.echo()
    _judge(found, agreed)


def _judge(found: Any, agreed: str) -> None:
    """Say who differs and who could not be asked; the former fails."""
    told = [item for item in found.replicas if item.digest]
    unknown = [view.name_of(item) for item in found.replicas if not item.digest]
    different = [view.name_of(item) for item in told if item.digest != agreed]
    if unknown:
        click.echo(f"Not compared: {', '.join(unknown)}.", err=True)
    if not different:
        click.echo(f"{len(told)} of {len(found.replicas)} managers hold the same at index {found.index}.", err=True)
        return
    click.echo(
        f"At index {found.index} {', '.join(different)} held something else than the others. Keep a copy of each state "
        "directory and report this; then demote and promote those managers, which copies the state anew.",
        err=True,
    )
    raise Silent

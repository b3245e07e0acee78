"""`pyswarm swarm inspect`: the swarm's settings, and how its managers are. Never its keys or tokens."""

from __future__ import annotations

from typing import Any

import click

from pyswarm.v1 import control_pb2
from pyswarm.v1 import operator_pb2 as pb
from pyswarm_cli.connection import call, connect
from pyswarm_cli.output.rows import show_objects


@click.command(help="Show the settings of the swarm, and how its managers are.")
@click.option("-f", "--format", "format_", metavar="FORMAT", default="", help="A Go-style template")
@click.pass_context
def inspect(ctx: click.Context, format_: str) -> None:
    """`swarm inspect`."""
    from pyswarm_cli.views import inspected  # noqa: PLC0415 - the model and its codec are only needed here
    from pyswarm_common.codec import from_proto  # noqa: PLC0415
    from pyswarm_common.model import Cluster  # noqa: PLC0415

    connection = connect(ctx)
    cluster = call(connection.control.GetCluster, control_pb2.GetClusterRequest()).cluster
    peers = call(connection.operator.ListPeers, pb.ListPeersRequest()).peers
    found = inspected.cluster(from_proto(Cluster, cluster)) | {"Managers": _managers(peers)}
    click.echo(show_objects([found], format_), nl=False)


def _managers(peers: Any) -> dict[str, Any]:
    voters = [peer for peer in peers if peer.role != pb.PEER_ROLE_LEARNER]
    return {
        "Voters": len(voters),
        "Reachable": sum(peer.reachable for peer in voters),
        "Quorum": len(voters) // 2 + 1,
        "Joining": len(peers) - len(voters),
        "Leader": next((peer.hostname or peer.node_id for peer in voters if peer.role == pb.PEER_ROLE_LEADER), ""),
    }

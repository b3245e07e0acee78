"""`pyswarm simulate loss`: what would happen if nodes were lost now, asked of the leader. Nothing happens."""

from __future__ import annotations

import click

from pyswarm.v1 import plans_pb2 as pb
from pyswarm_cli.connection import call, connect
from pyswarm_cli.nodes import get_node
from pyswarm_cli.output.rows import show_objects
from pyswarm_cli.views import plans as view
from pyswarm_common.errors import InvalidArgument


@click.command(help="Tell what would happen if nodes were lost now: by the real planner, on a copy of the real state.")
@click.option("--node", "nodes", multiple=True, metavar="NODE", help="A node that is lost (may be repeated)")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="All nodes with this label are lost")
@click.option("--format", "format_", metavar="FORMAT", default="", help='"json", or a Go-style template')
@click.pass_context
def loss(ctx: click.Context, nodes: tuple[str, ...], labels: tuple[str, ...], format_: str) -> None:
    """`simulate loss`."""
    if not nodes and not labels:
        raise InvalidArgument("which nodes are lost? give --node or --label")
    connection = connect(ctx)
    names = [get_node(connection, name).id if name == "self" else name for name in nodes]
    answer = call(connection.plans.SimulateLoss, pb.SimulateLossRequest(nodes=names, labels=labels))
    if format_:
        click.echo(show_objects([view.loss_json(answer)], format_), nl=False)
    else:
        click.echo(view.loss_text(answer), nl=False)

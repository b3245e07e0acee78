"""`pyswarm network connect` and `disconnect`: plain containers of this node on attachable networks."""

from __future__ import annotations

import click

from pyswarm_cli.connection import call
from pyswarm_cli.connection import connect as connection_of

_TIMEOUT_S = 60.0


@click.command(help="Connect a container of this node, which is no task, to an attachable network.")
@click.option("--alias", "aliases", multiple=True, metavar="NAME", help="Add network-scoped alias for the container")
@click.option("--ip", default="", metavar="ADDRESS", help='IPv4 address (e.g., "172.30.100.104")')
@click.option("--ip6", default="", metavar="ADDRESS", help='IPv6 address (e.g., "2001:db8::33")')
@click.argument("network", metavar="NETWORK")
@click.argument("container", metavar="CONTAINER")
@click.pass_context
def connect(ctx: click.Context, aliases: tuple[str, ...], ip: str, ip6: str, network: str, container: str) -> None:
    """`network connect`."""
    from pyswarm.v1 import plain_pb2 as pb  # noqa: PLC0415 - with the command that needs it

    wanted = pb.PlainNetwork(network=network, aliases=aliases, ip=ip, ip6=ip6)
    request = pb.ConnectPlainRequest(container=container, network=wanted)
    call(connection_of(ctx).plain.ConnectPlain, request, timeout_s=_TIMEOUT_S)


@click.command(help="Disconnect a container of this node, which is no task, from a network.")
@click.option("-f", "--force", is_flag=True, help="Force the container to disconnect from a network")
@click.argument("network", metavar="NETWORK")
@click.argument("container", metavar="CONTAINER")
@click.pass_context
def disconnect(ctx: click.Context, force: bool, network: str, container: str) -> None:
    """`network disconnect`."""
    from pyswarm.v1 import plain_pb2 as pb  # noqa: PLC0415 - with the command that needs it

    request = pb.DisconnectPlainRequest(container=container, network=network, force=force)
    call(connection_of(ctx).plain.DisconnectPlain, request, timeout_s=_TIMEOUT_S)

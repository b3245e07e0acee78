"""`pyswarm network …`."""

from __future__ import annotations

from typing import Any

import click

from pyswarm.v1 import control_pb2
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.failures import each
from pyswarm_cli.listing import all_networks
from pyswarm_cli.output.rows import show, show_objects
from pyswarm_cli.params import filter_option, filters, format_option, no_trunc_option, quiet_option
from pyswarm_cli.parse.pairs import mapping
from pyswarm_cli.views import networks as network_view


def get_network(connection: Connection, name: str) -> Any:
    """One network by id, name or id prefix."""
    return call(connection.control.GetNetwork, control_pb2.GetNetworkRequest(network=name)).network


@click.command(help="Create a network that spans the nodes of the swarm.")
@click.option("-d", "--driver", default="overlay", show_default=True, help="Driver of the network")
@click.option("--subnet", multiple=True, metavar="CIDR", help="A subnet, of IPv4 or IPv6 (default: chosen)")
@click.option("--gateway", multiple=True, metavar="ADDRESS", help="The address its containers send to the outside by")
@click.option("--ip-range", multiple=True, metavar="CIDR", help="Part of a subnet that containers get addresses from")
@click.option("--aux-address", multiple=True, metavar="NAME=ADDRESS", help="An address that no container gets")
@click.option("--ipv6", is_flag=True, help="An IPv6 subnet too, chosen unless --subnet gives one")
@click.option("--attachable", is_flag=True, help="Let containers that are no tasks attach")
@click.option("--internal", is_flag=True, help="No way to the outside")
@click.option("--ingress", is_flag=True, help="The network of published ports")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="Labels")
@click.option("-o", "--opt", multiple=True, metavar="KEY=VALUE", help="Options of the driver")
@click.option("--scope", type=click.Choice(["swarm"]), default="swarm", help="Only swarm")
@click.argument("name", metavar="NETWORK")
@click.pass_context
def create(
    ctx: click.Context,
    driver: str,
    subnet: tuple[str, ...],
    gateway: tuple[str, ...],
    ip_range: tuple[str, ...],
    aux_address: tuple[str, ...],
    ipv6: bool,
    attachable: bool,
    internal: bool,
    ingress: bool,
    label: tuple[str, ...],
    opt: tuple[str, ...],
    scope: str,
    name: str,
) -> None:
    """`network create`."""
    from pyswarm.v1 import types_pb2  # noqa: PLC0415 - with the command that writes

    spec = types_pb2.NetworkSpec(
        name=name,
        labels=mapping(label, "label"),
        driver=driver,
        subnets=subnet,
        gateways=gateway,
        ip_ranges=ip_range,
        auxiliary_addresses=mapping(aux_address, "aux-address"),
        ipv6=ipv6,
        internal=internal,
        attachable=attachable,
        ingress=ingress,
        options=mapping(opt, "option"),
    )
    request = control_pb2.CreateNetworkRequest(spec=spec)
    click.echo(call(connect(ctx).control.CreateNetwork, request).network.id)


@click.command(help="List networks.")
@filter_option
@format_option
@quiet_option
@no_trunc_option
@click.pass_context
def list_networks(ctx: click.Context, filter_: tuple[str, ...], format_: str, quiet: bool, no_trunc: bool) -> None:
    """`network ls`."""
    wanted = filters(filter_, ("id", "name", "label", "driver"))
    drivers = wanted.get("driver", [])
    rows = [
        network_view.row(network, no_trunc=no_trunc)
        for network in sorted(all_networks(connect(ctx), wanted), key=lambda network: network.spec.name)
        if not drivers or (network.spec.driver or "overlay") in drivers
    ]
    click.echo(show(rows, network_view.COLUMNS, format_, quiet=quiet), nl=False)


@click.command(help="Show everything about networks.")
@click.option("-f", "--format", "format_", metavar="FORMAT", default="", help="A Go-style template")
@click.argument("networks", metavar="NETWORK...", nargs=-1, required=True)
@click.pass_context
def inspect(ctx: click.Context, format_: str, networks: tuple[str, ...]) -> None:
    """`network inspect`."""
    from pyswarm_cli.views import inspected  # noqa: PLC0415 - the model and its codec are only needed here
    from pyswarm_common.codec import from_proto  # noqa: PLC0415
    from pyswarm_common.model import Network  # noqa: PLC0415

    connection = connect(ctx)
    found = [inspected.network(from_proto(Network, get_network(connection, name))) for name in networks]
    click.echo(show_objects(found, format_), nl=False)


@click.command(help="Remove networks.")
@click.argument("networks", metavar="NETWORK...", nargs=-1, required=True)
@click.pass_context
def remove(ctx: click.Context, networks: tuple[str, ...]) -> None:
    """`network rm`."""
    connection = connect(ctx)

    def act(name: str) -> None:
        call(connection.control.RemoveNetwork, control_pb2.RemoveNetworkRequest(network=name))
        click.echo(name)

    each(networks, act)

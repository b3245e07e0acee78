"""`pyswarm network …`."""

from __future__ import annotations

from typing import Any

import click

from pyswarm.v1 import control_pb2
from pyswarm_cli.boolean_flags import DockerCommand
from pyswarm_cli.commands.network_prune import agreed
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.failures import FromDaemon, each
from pyswarm_cli.listing import all_networks
from pyswarm_cli.local_networks import find_local, local_networks, passes
from pyswarm_cli.output.rows import show, show_objects
from pyswarm_cli.params import filter_option, filters, format_option, no_trunc_option, quiet_option
from pyswarm_cli.views import networks as network_view
from pyswarm_common.errors import NotFound

_INGRESS_WARNING = (
    "WARNING! Without the routing-mesh network no port can be published on all nodes, "
    "until another one is made with `network create --ingress`."
)


def get_network(connection: Connection, name: str) -> Any:
    """One network by id, name or id prefix."""
    return call(connection.control.GetNetwork, control_pb2.GetNetworkRequest(network=name)).network


@click.command(cls=DockerCommand, help="Create a network.")
@click.option(
    "-d", "--driver", default="", metavar="DRIVER", help="overlay (the default), bridge, macvlan, or a plugin"
)
@click.option("-o", "--opt", multiple=True, metavar="KEY=VALUE", help="Options of the driver")
@click.option("--subnet", multiple=True, metavar="CIDR", help="Its subnet (default: chosen)")
@click.option("--gateway", multiple=True, metavar="ADDRESS", help="The address its containers send to the outside by")
@click.option("--ip-range", multiple=True, metavar="CIDR", help="The part of a subnet that containers get addresses of")
@click.option("--aux-address", multiple=True, metavar="NAME=ADDRESS", help="An address that somebody else has")
@click.option("--ipv4/--no-ipv4", default=True, help="IPv4 (--ipv4=false: with an IPv6 subnet, that alone)")
@click.option("--ipv6", is_flag=True, help="IPv6 as well")
@click.option("--ipam-driver", default="default", show_default=True, metavar="DRIVER", help="Who gives out addresses")
@click.option("--ipam-opt", multiple=True, metavar="KEY=VALUE", help="Options of the IPAM driver")
@click.option("--attachable", is_flag=True, help="Let containers that are no tasks attach")
@click.option("--internal", is_flag=True, help="No way to the outside")
@click.option("--ingress", is_flag=True, help="The network of published ports")
@click.option("--label", multiple=True, metavar="KEY=VALUE", help="Labels")
@click.option("--config-only", is_flag=True, help="Only settings, kept by this node, for networks that take them")
@click.option("--config-from", default="", metavar="NETWORK", help="On each node, the settings of this network there")
@click.option("--scope", type=click.Choice(["swarm", "local"]), default=None, help="swarm; with --config-only: local")
@click.argument("name", metavar="NETWORK")
@click.pass_context
def create(ctx: click.Context, /, name: str, **given: Any) -> None:
    """`network create`."""
    from pyswarm.v1 import localnet_pb2  # noqa: PLC0415 - with the command that writes
    from pyswarm_cli.parse.networks import network_spec  # noqa: PLC0415

    spec = network_spec(name, given)
    connection = connect(ctx)
    if spec.config_only:
        request = localnet_pb2.CreateLocalNetworkRequest(spec=spec)
        network = call(connection.local_networks.CreateLocalNetwork, request).network
    else:
        network = call(connection.control.CreateNetwork, control_pb2.CreateNetworkRequest(spec=spec)).network
    click.echo(network.id)


@click.command(help="List networks.")
@filter_option
@format_option
@quiet_option
@no_trunc_option
@click.pass_context
def list_networks(ctx: click.Context, filter_: tuple[str, ...], format_: str, quiet: bool, no_trunc: bool) -> None:
    """`network ls`."""
    wanted = filters(filter_, ("id", "name", "label", "driver", "scope", "type"))
    connection = connect(ctx)
    found = [network for network in local_networks(connection) if passes(network, wanted)]
    if wanted.get("scope") != ["local"]:
        asked = {key: values for key, values in wanted.items() if key in ("id", "name", "label")}
        found += all_networks(connection, asked)
    rows = [
        network_view.row(network, no_trunc=no_trunc)
        for network in sorted(found, key=lambda network: network.spec.name)
        if network_view.is_wanted(network, wanted)
    ]
    click.echo(show(rows, network_view.COLUMNS, format_, quiet=quiet), nl=False)


@click.command(help="Show everything about networks.")
@click.option("-f", "--format", "format_", metavar="FORMAT", default="", help="A Go-style template")
@click.option("-v", "--verbose", is_flag=True, help="As docker has it; everything is always shown")
@click.argument("networks", metavar="NETWORK...", nargs=-1, required=True)
@click.pass_context
def inspect(ctx: click.Context, format_: str, verbose: bool, networks: tuple[str, ...]) -> None:
    """`network inspect`. What is there is shown, also beside a name that is not, as by docker."""
    connection = connect(ctx)
    found: list[dict[str, Any]] = []
    try:
        each(networks, lambda name: found.append(_everything_about(connection, name)))
    finally:
        click.echo(show_objects(found, format_), nl=False)


def _everything_about(connection: Connection, name: str) -> dict[str, Any]:
    from pyswarm_cli.views import inspected, network_usage  # noqa: PLC0415 - the model and its codec: only needed here
    from pyswarm_common.codec import from_proto  # noqa: PLC0415
    from pyswarm_common.model import Network  # noqa: PLC0415

    local = find_local(connection, name)
    if local is not None:
        return inspected.network(from_proto(Network, local))
    answer = call(connection.control.GetNetwork, control_pb2.GetNetworkRequest(network=name))
    return {**inspected.network(from_proto(Network, answer.network)), **network_usage.usage_json(answer.usage)}


@click.command(help="Remove networks.")
@click.option("-f", "--force", is_flag=True, help="Do not error if the network does not exist")
@click.argument("networks", metavar="NETWORK...", nargs=-1, required=True)
@click.pass_context
def remove(ctx: click.Context, networks: tuple[str, ...], force: bool) -> None:
    """`network rm`."""
    from pyswarm.v1 import localnet_pb2  # noqa: PLC0415 - with the command that writes

    connection = connect(ctx)

    def act(name: str) -> None:
        local = find_local(connection, name)
        if local is not None:
            request = localnet_pb2.RemoveLocalNetworkRequest(network=local.spec.name)
            call(connection.local_networks.RemoveLocalNetwork, request)
            click.echo(name)
            return
        if _remove(connection, name, force=force):
            click.echo(name)

    each(networks, act)


def _remove(connection: Connection, name: str, *, force: bool) -> bool:
    """Whether it was there and is gone. Before the network of published ports goes, the user is asked, as by docker."""
    try:
        if get_network(connection, name).spec.ingress and not agreed(_INGRESS_WARNING):
            return False
        call(connection.control.RemoveNetwork, control_pb2.RemoveNetworkRequest(network=name))
    except FromDaemon as error:
        if force and isinstance(error.refusal, NotFound):
            return False
        raise
    return True

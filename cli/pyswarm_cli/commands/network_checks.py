"""`pyswarm network verify` and `pyswarm network trace`."""

from __future__ import annotations

import click

from pyswarm.v1 import network_checks_pb2 as pb
from pyswarm_cli.connection import answers, connect, stream
from pyswarm_cli.failures import Silent
from pyswarm_cli.output.rows import show_objects
from pyswarm_cli.params import format_option
from pyswarm_cli.views import network_checks as view
from pyswarm_common.errors import InvalidArgument

_TRACE_HELP = """Show the way from a container to a service, a task, a name or an address, and where it stops.

FROM is a task, a service, or a plain container. With ingress:PORT as TO, FROM is a node: the way of a client from
outside through a port that is published there."""


@click.command(help="Compare the networks of nodes with what they should be, and repair them.")
@click.option("--dry-run", is_flag=True, help="Only say what is wrong")
@format_option
@click.argument("node", metavar="[NODE]", default="")
@click.pass_context
def verify(ctx: click.Context, dry_run: bool, format_: str, node: str) -> None:
    """`network verify`."""
    request = pb.VerifyNetworksRequest(node=node, dry_run=dry_run)
    found: list[pb.NodeNetworks] = []
    for answer in answers(stream(connect(ctx).network_checks.VerifyNetworks, request)):
        found.append(answer)
        if answer.away:
            click.echo(f"warning: {answer.away}: its networks were not verified", err=True)
        elif not format_:
            click.echo(view.node_text(answer), nl=False)
    if format_:
        found.sort(key=lambda one: one.node_hostname)
        click.echo(show_objects([view.node_json(one) for one in found], "" if format_ == "json" else format_), nl=False)
    if not all(view.is_well(one, dry_run=dry_run) for one in found):
        raise Silent(1)


@click.command(help=_TRACE_HELP)
@click.option("--probe", is_flag=True, help="Also open a TCP connection from inside the container")
@click.option("--udp", is_flag=True, help="Ask for a UDP port")
@format_option
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO[:PORT]")
@click.pass_context
def trace(ctx: click.Context, probe: bool, udp: bool, format_: str, source: str, target: str) -> None:
    """`network trace`."""
    name, port = place_of(target)
    if probe and (udp or not port):
        raise InvalidArgument("--probe opens a TCP connection: give TO as NAME:PORT, without --udp")
    protocol = "udp" if udp else "tcp"
    request = pb.TraceNetworkRequest(source=source, target=name, port=port, protocol=protocol, probe=probe)
    steps: list[pb.TraceStep] = []
    for step in answers(stream(connect(ctx).network_checks.TraceNetwork, request)):
        steps.append(step)
        if not format_:
            click.echo(view.step_text(step), nl=False)
    if format_:
        click.echo(show_objects([view.trace_json(steps)], "" if format_ == "json" else format_), nl=False)
    if not view.goes_through(steps):
        raise Silent(1)


def place_of(text: str) -> tuple[str, int]:
    """NAME, NAME:PORT, ADDRESS, or [IPV6]:PORT. Raises InvalidArgument."""
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise InvalidArgument(f"{text!r} is no place: write an IPv6 address with a port as [ADDRESS]:PORT")
        return name, _port(rest[1:]) if rest else 0
    if text.count(":") > 1:
        return text, 0
    name, colon, port = text.partition(":")
    if not name:
        raise InvalidArgument("say where the way should lead: a service, a task, a name or an address")
    return name, _port(port) if colon else 0


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:6]) < 65536:
        raise InvalidArgument(f"invalid port {text!r}: use 1 to 65535")
    return int(text)

"""`pyswarm node …`."""

from __future__ import annotations

from typing import Any

import click

from pyswarm.v1 import control_pb2, node_pb2
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.failures import FromDaemon, each
from pyswarm_cli.listing import all_nodes, node_resources
from pyswarm_cli.nodes import answer_about, change_node, check_drain_flags, get_node, plan_changes, wait_empty
from pyswarm_cli.output.rows import show, show_objects
from pyswarm_cli.params import DURATION, filter_option, filters, format_option, no_trunc_option, quiet_option
from pyswarm_cli.parse.pairs import key_value
from pyswarm_cli.planning import Planning, plan_options
from pyswarm_cli.tainting import TAINT, change_taints
from pyswarm_cli.task_list import show_tasks
from pyswarm_cli.views import nodes as node_view
from pyswarm_common import errors
from pyswarm_common.model import Availability, NodeRole, Taint


@click.command(help="List the nodes of the swarm; the star marks this one.")
@filter_option
@format_option
@quiet_option
@click.option("--resources", is_flag=True, help="What is reserved on each node, of what it has")
@click.pass_context
def list_nodes(ctx: click.Context, filter_: tuple[str, ...], format_: str, quiet: bool, resources: bool) -> None:
    """`node ls`."""
    wanted = filters(filter_, ("id", "name", "label", "role"))
    connection = connect(ctx)
    roles = [NodeRole[role.upper()] for role in wanted.get("role", []) if role.upper() in NodeRole.__members__]
    nodes = [node for node in all_nodes(connection, wanted) if not wanted.get("role") or node.spec.role in roles]
    own = "" if quiet else _own_id(connection)
    reserved = node_resources(connection) if resources else {}
    rows = [node_view.row(node, own, reserved.get(node.id)) for node in sorted(nodes, key=node_view.sort_key)]
    columns = node_view.WITH_RESOURCES if resources else node_view.COLUMNS
    click.echo(show(rows, columns, format_, quiet=quiet), nl=False)


def _own_id(connection: Connection) -> str:
    if connection.is_remote:
        return connection.own_node
    return str(call(connection.daemon.GetInfo, node_pb2.GetInfoRequest()).node_id)


@click.command(help="Show everything about nodes.")
@click.option("-f", "--format", "format_", metavar="FORMAT", default="", help="A Go-style template")
@click.option("--pretty", is_flag=True, help="In words, for people")
@click.argument("nodes", metavar="self|NODE...", nargs=-1, required=True)
@click.pass_context
def inspect(ctx: click.Context, format_: str, pretty: bool, nodes: tuple[str, ...]) -> None:
    """`node inspect`."""
    from pyswarm_cli.views import inspected, node_pretty  # noqa: PLC0415 - the model and its codec are only needed here
    from pyswarm_cli.views.shapes import given  # noqa: PLC0415
    from pyswarm_common.codec import from_proto  # noqa: PLC0415
    from pyswarm_common.model import Node  # noqa: PLC0415

    if pretty and format_:
        raise errors.InvalidArgument("--format is incompatible with human friendly format")
    connection = connect(ctx)
    roots = _roots(connection)
    answers = [answer_about(connection, name) for name in nodes]
    found = [
        {**inspected.node(from_proto(Node, answer.node), roots, answer.resources), **given(Warnings=[*answer.warnings])}
        for answer in answers
    ]
    if pretty:
        click.echo("\n".join(node_pretty.pretty(node) for node in found), nl=False)
    else:
        click.echo(show_objects(found, format_), nl=False)


def _roots(connection: Connection) -> bytes:
    """Every root that the swarm trusts now; nothing where nobody can say."""
    from pyswarm.v1 import security_pb2  # noqa: PLC0415 - only here

    try:
        root = call(connection.security.GetRoot, security_pb2.GetRootRequest()).root
    except FromDaemon:
        return b""
    return bytes(root.root_ca_cert + root.target_ca_cert)


@click.command(help="List the tasks of nodes; of this one when none is named.")
@filter_option
@format_option
@quiet_option
@no_trunc_option
@click.option("--no-resolve", is_flag=True, help="Ids instead of names")
@click.argument("nodes", metavar="[NODE...]", nargs=-1)
@click.pass_context
def tasks(
    ctx: click.Context,
    filter_: tuple[str, ...],
    format_: str,
    quiet: bool,
    no_trunc: bool,
    no_resolve: bool,
    nodes: tuple[str, ...],
) -> None:
    """`node ps`."""
    connection = connect(ctx)
    ids = [get_node(connection, name).id for name in nodes or ("self",)]
    show_tasks(connection, (), ids, filter_, format_, quiet=quiet, no_trunc=no_trunc, no_resolve=no_resolve)


@click.command(help="Change a node's availability, role, labels or taints.")
@click.option("--availability", type=click.Choice(["active", "pause", "drain"]))
@click.option("--role", type=click.Choice(["worker", "manager"]))
@click.option("--label-add", multiple=True, metavar="KEY=VALUE")
@click.option("--label-rm", multiple=True, metavar="KEY")
@click.option("--taint-add", multiple=True, type=TAINT, help="Keep tasks away (KEY[=VALUE][:EFFECT])")
@click.option("--taint-rm", multiple=True, metavar="KEY[:EFFECT]", help="Remove the taints of that key")
@click.option("-f", "--force", is_flag=True, help="Demote although the managers lose their majority")
@click.option(
    "--deadline", type=DURATION, help="With drain: what has not moved after so long is stopped at once (ms|s|m|h)"
)
@click.option("--wait", is_flag=True, help="With drain: wait until nothing runs on the node any more")
@plan_options
@click.argument("node")
@click.pass_context
def update(
    ctx: click.Context,
    availability: str | None,
    role: str | None,
    label_add: tuple[str, ...],
    label_rm: tuple[str, ...],
    taint_add: tuple[Taint, ...],
    taint_rm: tuple[str, ...],
    force: bool,
    deadline: float | None,
    wait: bool,
    node: str,
    planning: Planning,
) -> None:
    """`node update`."""
    check_drain_flags(availability, deadline, wait=wait)
    added = [key_value(text, "label") for text in label_add]

    def change(spec: Any) -> None:
        if availability is not None:
            spec.availability = Availability[availability.upper()].value
            spec.drain_deadline_s = deadline or 0.0
        if role is not None:
            spec.role = NodeRole[role.upper()].value
        for key in label_rm:
            if key not in spec.labels:
                raise errors.NotFound(f"key '{key}' doesn't exist in node's labels")
            del spec.labels[key]
        spec.labels.update(dict(added))
        change_taints(spec, taint_add, taint_rm)

    connection = connect(ctx)
    if planning:
        plan_changes(connection, planning, [node], change)
        return
    before = change_node(connection, node, change, force=force)
    click.echo(node)
    if wait:
        wait_empty(connection, before)


def _set_role(
    ctx: click.Context, nodes: tuple[str, ...], role: NodeRole, done: str, already: str, *, force: bool = False
) -> None:
    connection = connect(ctx)

    def change(spec: Any) -> None:
        spec.role = role.value

    def act(name: str) -> None:
        before = change_node(connection, name, change, force=force)
        click.echo(f"Node {name} {already if before.spec.role == role else done}.")

    each(nodes, act)


@click.command(help="Make workers managers.")
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@click.pass_context
def promote(ctx: click.Context, nodes: tuple[str, ...]) -> None:
    """`node promote`."""
    _set_role(ctx, nodes, NodeRole.MANAGER, "promoted to a manager in the swarm", "is already a manager")


@click.command(help="Make managers workers. Refused where the others could decide nothing any more.")
@click.option("-f", "--force", is_flag=True, help="Demote although the managers lose their majority")
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@click.pass_context
def demote(ctx: click.Context, force: bool, nodes: tuple[str, ...]) -> None:
    """`node demote`."""
    _set_role(ctx, nodes, NodeRole.WORKER, "demoted in the swarm", "is already a worker", force=force)


@click.command(help="Remove nodes from the swarm. They must be down, and no managers.")
@click.option("-f", "--force", is_flag=True, help="Also when it is not down")
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@click.pass_context
def remove(ctx: click.Context, force: bool, nodes: tuple[str, ...]) -> None:
    """`node rm`."""
    connection = connect(ctx)

    def act(name: str) -> None:
        call(connection.control.RemoveNode, control_pb2.RemoveNodeRequest(node=name, force=force))
        click.echo(name)

    each(nodes, act)

"""`pyswarm task ls | inspect | restart | rm`."""

from __future__ import annotations

import click

from pyswarm.v1 import control_pb2
from pyswarm_cli.connection import call, connect
from pyswarm_cli.failures import each
from pyswarm_cli.output.rows import show_objects
from pyswarm_cli.params import filter_option, format_option, no_trunc_option, quiet_option


@click.command(help="List the tasks of all services, the newest of each slot first, its history below it.")
@filter_option
@format_option
@quiet_option
@no_trunc_option
@click.option("--no-resolve", is_flag=True, help="Ids instead of names")
@click.pass_context
def list_tasks(
    ctx: click.Context, filter_: tuple[str, ...], format_: str, quiet: bool, no_trunc: bool, no_resolve: bool
) -> None:
    """`task ls`."""
    from pyswarm_cli.task_list import show_tasks  # noqa: PLC0415 - the other commands do not need it

    show_tasks(connect(ctx), (), [], filter_, format_, quiet=quiet, no_trunc=no_trunc, no_resolve=no_resolve)


@click.command(help="Show everything about tasks.")
@click.option("-f", "--format", "format_", metavar="FORMAT", default="", help="A Go-style template")
@click.argument("tasks", metavar="TASK...", nargs=-1, required=True)
@click.pass_context
def inspect(ctx: click.Context, format_: str, tasks: tuple[str, ...]) -> None:
    """`task inspect`."""
    from pyswarm_cli.views import inspected  # noqa: PLC0415 - the model and its codec are only needed here
    from pyswarm_common.codec import from_proto  # noqa: PLC0415
    from pyswarm_common.model import Task  # noqa: PLC0415

    connection = connect(ctx)
    found = [call(connection.control.GetTask, control_pb2.GetTaskRequest(task=name)).task for name in tasks]
    click.echo(show_objects([inspected.task(from_proto(Task, task)) for task in found], format_), nl=False)


@click.command(help="Replace tasks, although nothing changed, in the order and at the pace of their service's updates.")
@click.argument("tasks", metavar="TASK...", nargs=-1, required=True)
@click.pass_context
def restart(ctx: click.Context, tasks: tuple[str, ...]) -> None:
    """`task restart`."""
    connection = connect(ctx)

    def act(name: str) -> None:
        call(connection.control.RestartTask, control_pb2.RestartTaskRequest(task=name))
        click.echo(name)

    each(tasks, act)


@click.command(help="Remove tasks from the history, or (with --force) stop them: their service makes others.")
@click.option("-f", "--force", is_flag=True, help="Also tasks that have not ended")
@click.argument("tasks", metavar="TASK...", nargs=-1, required=True)
@click.pass_context
def remove(ctx: click.Context, force: bool, tasks: tuple[str, ...]) -> None:
    """`task rm`."""
    connection = connect(ctx)

    def act(name: str) -> None:
        call(connection.control.RemoveTask, control_pb2.RemoveTaskRequest(task=name, force=force))
        click.echo(name)

    each(tasks, act)

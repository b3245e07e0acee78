"""`pyswarm task exec` and `pyswarm service exec`: docker's `exec`, for a container anywhere in the swarm."""

from __future__ import annotations

import os
import sys
from typing import IO

import click

from pyswarm.v1 import exec_pb2
from pyswarm_cli.connection import connect
from pyswarm_cli.entering import terminal
from pyswarm_cli.entering.conversation import converse
from pyswarm_cli.failures import Silent
from pyswarm_cli.parse.pairs import environment, environment_file, merge_environment
from pyswarm_common.errors import InvalidArgument


@click.command(
    help="Run a command in the container of a task, or of one of a service's running tasks.",
    context_settings={"allow_interspersed_args": False},
)
@click.option("-d", "--detach", is_flag=True, help="Leave the command running, and do not wait for it")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set environment variables")
@click.option("--env-file", type=click.File("r"), multiple=True, help="Read in a file of environment variables")
@click.option("-i", "--interactive", is_flag=True, help="Keep its standard input open")
@click.option("--privileged", is_flag=True, help="Give extended privileges to the command")
@click.option("-t", "--tty", is_flag=True, help="Allocate a pseudo-TTY")
@click.option("-u", "--user", default="", help="Name or uid (format: <name|uid>[:<group|gid>])")
@click.option("-w", "--workdir", default="", help="Working directory inside the container")
@click.argument("target", metavar="TASK|SERVICE")
@click.argument("argv", metavar="COMMAND [ARG]...", nargs=-1, required=True)
@click.pass_context
def execute(
    ctx: click.Context,
    detach: bool,
    env: tuple[str, ...],
    env_file: tuple[IO[str], ...],
    interactive: bool,
    privileged: bool,
    tty: bool,
    user: str,
    workdir: str,
    target: str,
    argv: tuple[str, ...],
) -> None:
    """`task exec`, `service exec`."""
    if tty and interactive and not detach and not terminal.is_terminal(sys.stdin.fileno()):
        raise InvalidArgument("the input device is not a TTY: leave out -t")
    variables = [entry for file in env_file for entry in environment_file(file.read(), os.environ)]
    start = exec_pb2.ExecStart(
        target=target,
        argv=argv,
        tty=tty,
        stdin=interactive and not detach,
        env=merge_environment(variables, environment(env, os.environ)),
        user=user,
        working_dir=workdir,
        privileged=privileged,
        detach=detach,
    )
    code = converse(connect(ctx), start)
    if code:
        raise Silent(code)

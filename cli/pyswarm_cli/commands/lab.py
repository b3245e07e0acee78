"""`pyswarm lab …`: thin commands around `pyswarm_lab`, which is imported only here."""

from __future__ import annotations

import os
import sys
import time

import click

from pyswarm_cli.failures import Silent
from pyswarm_cli.output.rows import Columns, Row, show
from pyswarm_lab import Lab, LabError, environment, lab_names
from pyswarm_lab.layout import BASE, Families

_COLUMNS = Columns(
    headings={
        "Lab": "LAB",
        "Host": "HOST",
        "Role": "ROLE",
        "State": "STATE",
        "Address": "ADDRESS",
        "PID": "PID",
        "Daemon": "PYSWARMD",
    },
    table=("Lab", "Host", "Role", "State", "Address", "PID", "Daemon"),
    quiet="Host",
)
_name = click.option("--name", default="lab", show_default=True, help="Which lab")
_host = click.argument("host")


@click.command(help="Make a lab: hosts in namespaces of their own on this machine, and a swarm on them.")
@_name
@click.option("--managers", type=int, default=3, show_default=True)
@click.option("--workers", type=int, default=2, show_default=True)
@click.option("--no-init", is_flag=True, help="Only hosts with their daemons, no swarm")
@click.option("--ipv6", is_flag=True, help="Hosts have IPv6 addresses only")
@click.option("--dual-stack", is_flag=True, help="Hosts have IPv4 and IPv6 addresses; the swarm is made with IPv4")
def up(name: str, managers: int, workers: int, no_init: bool, ipv6: bool, dual_stack: bool) -> None:
    """`lab up`."""
    if ipv6 and dual_stack:
        raise click.UsageError("--ipv6 and --dual-stack exclude each other")
    started = time.monotonic()
    families: Families = "ipv6" if ipv6 else "dual-stack" if dual_stack else "ipv4"
    lab = Lab.up(name, managers, workers, init=not no_init, families=families, say=click.echo)
    click.echo(f"Lab {lab.name} is up after {time.monotonic() - started:.1f} s. Try:")
    option = "" if name == "lab" else f"--name {name} "
    click.echo(f"    pyswarm lab exec {option}n1 -- pyswarm node ls")


@click.command(help="Remove a lab, whatever is left of it, and check that nothing stays behind.")
@_name
def down(name: str) -> None:
    """`lab down`."""
    lab = Lab(name)
    if not lab.exists():
        click.echo(f"Lab {name}: nothing to remove.")
        return
    left = lab.down()
    for thing in left:
        click.echo(f"still there: {thing}", err=True)
    if left:
        raise Silent
    click.echo(f"Lab {name} is gone: no process, mount, namespace, cgroup or interface is left.")


@click.command(help="List labs and their hosts.")
@click.option("--name", default="", help="Only this lab")
@click.option("--format", "format_", metavar="FORMAT", default="", help="table, json, or a Go-style template")
def list_labs(name: str, format_: str) -> None:
    """`lab ls`."""
    rows = [row for lab in lab_names(BASE) if name in ("", lab) for row in _rows(Lab(lab))]
    click.echo(show(rows, _COLUMNS, format_), nl=False)


def _rows(lab: Lab) -> list[Row]:
    out: list[Row] = []
    for record in lab.hosts:
        running = lab.is_running(record.name)
        state = "off"
        if running:
            state = "cut" if lab.is_cut(record.name) else "running"
        out.append(
            {
                "Lab": lab.name,
                "Host": record.name,
                "Role": record.role,
                "State": state,
                "Address": record.address,
                "PID": record.init.pid if running and record.init is not None else "",
                "Daemon": lab.daemon_status(record.name) if running else "",
            }
        )
    return out


@click.command(
    help="Run a command inside a host: pyswarm lab exec n1 -- pyswarm node ls.",
    context_settings={"allow_interspersed_args": False},
)
@_name
# The command has our terminal anyway; the flags are for fingers that know docker.
@click.option("-i", "--interactive", is_flag=True, help="(always so)")
@click.option("-t", "--tty", is_flag=True, help="(always so)")
@_host
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARG...]")
def execute(name: str, interactive: bool, tty: bool, host: str, command: tuple[str, ...]) -> None:
    """`lab exec`. Becomes the command: its terminal, signals and exit code are its own."""
    argv = Lab(name).exec_argv(host, command[1:] if command[0] == "--" else command)
    sys.stdout.flush()
    try:
        os.execvpe(argv[0], argv, environment())  # noqa: S606 - an argument list, and no shell
    except FileNotFoundError:
        raise LabError("The program nsenter is missing: install util-linux.") from None


@click.command(help="Cut a host's power; with --process, SIGKILL only that daemon.")
@_name
@click.option("--process", type=click.Choice(["manager", "pyswarmd"]), help="Only this one")
@_host
def kill(name: str, process: str | None, host: str) -> None:
    """`lab kill`."""
    Lab(name).kill(host, process)
    click.echo(host)


@click.command(help="Give a host its power back; on a running host, start its daemon again.")
@_name
@_host
def start(name: str, host: str) -> None:
    """`lab start`."""
    Lab(name).start(host)
    click.echo(host)


@click.command(help="Pull a host's network cable.")
@_name
@_host
def cut(name: str, host: str) -> None:
    """`lab cut`."""
    Lab(name).cut(host)
    click.echo(host)


@click.command(help="Put a host's network cable back.")
@_name
@_host
def heal(name: str, host: str) -> None:
    """`lab heal`."""
    Lab(name).heal(host)
    click.echo(host)


@click.command(help="Show what a host's daemon writes.")
@_name
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on")
@click.option("-n", "--tail", type=click.IntRange(0, 1_000_000), default=None, help="Lines from the end")
@_host
def logs(name: str, follow: bool, tail: int | None, host: str) -> None:
    """`lab logs`."""
    path = Lab(name).log_path(host)
    lines = "+1" if tail is None else str(tail)
    argv = ["tail", "-n", lines, *(["-F"] if follow else []), "--", str(path)]
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606 - an argument list, and no shell

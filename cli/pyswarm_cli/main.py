"""The `pyswarm` command: reads the line, runs the command, and says what went wrong in one line.

Imports no command, no gRPC and no model: those come when a command runs. Exit codes are docker's: 1 for errors and
wrong arguments, 125 for wrong flags, 130 when interrupted.
"""

from __future__ import annotations

import sys

import click

from pyswarm_cli.failures import report
from pyswarm_cli.lazy import LazyGroup
from pyswarm_cli.streams import drop_unwritten, open_missing
from pyswarm_cli.tables import ROOT

DEFAULT_HOST = "unix:///run/pyswarm/pyswarm.sock"


@click.group(
    cls=LazyGroup,
    table=ROOT,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-H",
    "--host",
    metavar="HOST",
    envvar="PYSWARM_HOST",
    help=f"The daemon's socket, or tcp://MANAGER[:2377] [{DEFAULT_HOST}]",
)
@click.option(
    "--tls-dir",
    metavar="DIR",
    envvar="PYSWARM_TLS_DIR",
    help="Your client certificate, for tcp:// (cert.pem, key.pem, ca.pem) [~/.pyswarm]",
)
@click.version_option(package_name="pyswarm-cluster", prog_name="pyswarm", message="%(prog)s version %(version)s")
@click.pass_context
def cli(ctx: click.Context, host: str | None, tls_dir: str | None) -> None:
    """A swarm of machines that run your services."""
    del tls_dir  # read from the parameters by whoever connects
    ctx.obj = host or DEFAULT_HOST


def main() -> None:
    """Run, and end the process with the right exit code."""
    open_missing()
    try:
        code = cli.main(prog_name="pyswarm", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`): nothing to say, and nowhere to say it.
        drop_unwritten()
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    except Exception as error:  # the edge of the program: everything becomes one line and an exit code
        exit_code = report(error)
        drop_unwritten()
        sys.exit(exit_code)
    sys.exit(code if isinstance(code, int) else 0)

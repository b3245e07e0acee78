"""`pyswarmd`: reads its arguments, runs the daemon, and turns how it ended into one line and an exit code."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from pyswarm_common.daemon_logs import tame_logs
from pyswarm_common.errors import InvalidArgument, PyswarmError
from pyswarm_common.private_memory import keep_memory_private

from . import generic_resources
from .daemon import run_daemon
from .describe import version
from .limits import raise_open_files
from .paths import Options

_log = logging.getLogger("pyswarm_node")
_LEVELS = ("debug", "info", "warning", "error")
EXIT_REFUSED = 1
EXIT_BUG = 70


def main(argv: Sequence[str] | None = None) -> None:
    """Run the daemon until it is stopped."""
    options = parse(argv)
    if os.geteuid() != 0:
        sys.exit("pyswarmd: containers and networks need root: start it with sudo, or as a system service")
    logging.basicConfig(
        level=options.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    tame_logs()
    keep_memory_private()
    os.umask(0o077)
    raise_open_files()
    _log.debug("pyswarmd begins, state in %s, run files in %s", options.state_dir, options.run_dir)
    sys.exit(uvloop.run(_run(options)))


async def _run(options: Options) -> int:
    try:
        await run_daemon(options, _on_signals)
    except (PyswarmError, OSError) as error:
        print(f"pyswarmd: {error}", file=sys.stderr, flush=True)
        return EXIT_REFUSED
    except Exception as error:
        _log.critical("the daemon met a bug and ends", exc_info=error)
        return EXIT_BUG
    _log.info("stopped; containers run on")
    return 0


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def parse(argv: Sequence[str] | None) -> Options:
    defaults = Options()
    parser = argparse.ArgumentParser(prog="pyswarmd", description="The pyswarm daemon: runs on every host of a swarm.")
    parser.add_argument("--state-dir", type=Path, default=defaults.state_dir, help="default: %(default)s")
    parser.add_argument("--run-dir", type=Path, default=defaults.run_dir, help="default: %(default)s")
    parser.add_argument("--cgroup-parent", default=defaults.cgroup_parent, help="default: %(default)s")
    parser.add_argument("--agent-port", type=_port, default=defaults.agent_port, help="default: %(default)s")
    parser.add_argument(
        "--advertise-addr",
        default=None,
        metavar="ADDR|INTERFACE[:PORT]",
        help="what the other nodes are told from now on; default: as this node was made or joined",
    )
    parser.add_argument(
        "--node-generic-resource",
        action="append",
        default=[],
        metavar="KIND=NAME|KIND=COUNT",
        help="what services may ask for with --generic-resource; once for each named thing, or with a count",
    )
    parser.add_argument("--oci-runtime", default=None, help="name or path; default: crun, else runc")
    parser.add_argument(
        "--network-check-period",
        type=_period,
        default=defaults.network_check_period_s,
        metavar="SECONDS",
        help="how often networks are verified and repaired; default: %(default)g",
    )
    parser.add_argument("--log-level", choices=_LEVELS, default=defaults.log_level)
    parser.add_argument("--version", action="version", version=f"pyswarmd {version()}")
    arguments = parser.parse_args(argv)
    try:
        generic = generic_resources.parse(arguments.node_generic_resource)
    except InvalidArgument as error:
        parser.error(str(error))
    return Options(
        state_dir=arguments.state_dir.absolute(),
        run_dir=arguments.run_dir.absolute(),
        cgroup_parent=arguments.cgroup_parent,
        agent_port=arguments.agent_port,
        oci_runtime=arguments.oci_runtime,
        log_level=arguments.log_level,
        network_check_period_s=arguments.network_check_period,
        advertise=arguments.advertise_addr,
        generic_resources=generic,
    )


def _period(text: str) -> float:
    try:
        period_s = float(text)
    except ValueError:
        period_s = 0.0
    if not 0.1 <= period_s <= 86_400:  # also not a number
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0.1 to 86400")
    return period_s


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text[:6]) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not a port number")
    return int(text)

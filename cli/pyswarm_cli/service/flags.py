"""The flags of `service create` and `service update`, declared once.

Single values come as None when they were not given, so that one function (`service.build.apply`) serves both commands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pyswarm_cli.params import Parsed
from pyswarm_cli.parse import attachments, pairs, quantities

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]

DURATION = Parsed("duration", quantities.duration_s)
SIZE = Parsed("bytes", quantities.size_bytes)
CPUS = Parsed("decimal", quantities.nano_cpus)
PORTS = Parsed("port", attachments.ports)
MOUNT = Parsed("mount", attachments.mount)
NETWORK = Parsed("network", attachments.network)
PREFERENCE = Parsed("pref", attachments.preference)
HOST = Parsed("host:ip", attachments.host_entry)
LABEL = Parsed("key=value", lambda text: pairs.key_value(text, "label"))
SYSCTL = Parsed("key=value", lambda text: pairs.key_value(text, "sysctl"))
COUNT = Parsed("n", quantities.count)
RATIO = Parsed("ratio", quantities.ratio)
ORDER = click.Choice(["start-first", "stop-first"])


def _option(*names: str, type_: Any = str, help_: str) -> Decorator[Any]:
    return click.option(*names, type=type_, default=None, help=help_)


def _switch(name: str, *, help_: str, short: str = "") -> Decorator[Any]:
    """True with `--name`, False with `--no-name`, None when absent."""
    declaration = f"-{short}/ " if short else ""
    names = (*((declaration,) if short else ()), f"--{name}/--no-{name}")
    return click.option(name.replace("-", "_"), *names, default=None, help=help_)


def _list(*names: str, type_: Any = str, help_: str) -> Decorator[Any]:
    return click.option(*names, type=type_, multiple=True, help=help_)


def _rollout(kind: str, actions: list[str]) -> list[Decorator[Any]]:
    return [
        _option(f"--{kind}-delay", type_=DURATION, help_=f"Delay between {kind}s of tasks (ms|s|m|h) (default 0s)"),
        _option(
            f"--{kind}-failure-action", type_=click.Choice(actions), help_=f"When the {kind} fails (default pause)"
        ),
        _option(f"--{kind}-max-failure-ratio", type_=RATIO, help_="Failure rate to tolerate (default 0)"),
        _option(f"--{kind}-monitor", type_=DURATION, help_="How long to watch each new task for failure (default 5s)"),
        _option(f"--{kind}-order", type_=ORDER, help_="Order of stop and start (default stop-first)"),
        _option(f"--{kind}-parallelism", type_=COUNT, help_="Tasks at a time (0: all at once) (default 1)"),
    ]


SCALARS: list[Decorator[Any]] = [
    _option("--endpoint-mode", type_=click.Choice(["vip", "dnsrr"]), help_="How the service's name resolves"),
    _option("--entrypoint", help_="Overwrite the default ENTRYPOINT of the image"),
    _option("--health-cmd", help_="Command to run to check health"),
    _option("--health-interval", type_=DURATION, help_="Time between running the check (ms|s|m|h)"),
    _option("--health-retries", type_=COUNT, help_="Consecutive failures needed to report unhealthy"),
    _option("--health-start-period", type_=DURATION, help_="Start period before failures count (ms|s|m|h)"),
    _option("--health-timeout", type_=DURATION, help_="Maximum time to allow one check to run (ms|s|m|h)"),
    click.option("--no-healthcheck", is_flag=True, default=None, help="Disable any HEALTHCHECK of the image"),
    _option("--hostname", help_="Container hostname"),
    _switch("init", help_="Run an init in each container that forwards signals and reaps processes"),
    _option("--limit-cpu", type_=CPUS, help_="Limit CPUs"),
    _option("--limit-memory", type_=SIZE, help_="Limit memory"),
    _option("--limit-pids", type_=COUNT, help_="Limit the number of processes (0: no limit)"),
    _switch("read-only", help_="Mount the container's root filesystem read-only"),
    _option("--replicas", type_=COUNT, help_="Number of tasks"),
    _option("--replicas-max-per-node", type_=COUNT, help_="Tasks per node at most (0: no limit)"),
    _option("--reserve-cpu", type_=CPUS, help_="Reserve CPUs"),
    _option("--reserve-memory", type_=SIZE, help_="Reserve memory"),
    _option("--restart-condition", type_=click.Choice(["none", "on-failure", "any"]), help_="(default any)"),
    _option("--restart-delay", type_=DURATION, help_="Delay between restarts (ms|s|m|h) (default 5s)"),
    _option("--restart-max-attempts", type_=COUNT, help_="Restarts before giving up (0: no limit)"),
    _option("--restart-window", type_=DURATION, help_="Restarts older than this do not count (ms|s|m|h)"),
    *_rollout("rollback", ["pause", "continue"]),
    _option("--stop-grace-period", type_=DURATION, help_="Time before a container is killed (ms|s|m|h) (default 10s)"),
    _option("--stop-signal", help_="Signal to stop the container"),
    _switch("tty", short="t", help_="Allocate a pseudo-TTY"),
    *_rollout("update", ["pause", "continue", "rollback"]),
    _option("-u", "--user", help_="Name or UID, and group: name|uid[:group|gid]"),
    _option("-w", "--workdir", help_="Working directory inside the container"),
    _list("--cap-add", help_="Add Linux capabilities"),
    _list("--cap-drop", help_="Drop Linux capabilities"),
]

CREATE_LISTS: list[Decorator[Any]] = [
    _list("--constraint", help_="Placement constraints (node.role==worker)"),
    _list("--container-label", type_=LABEL, help_="Container labels"),
    _list("--dns", help_="DNS servers of the containers"),
    _list("-e", "--env", help_="Environment variables (NAME=VALUE, or NAME to pass ours on)"),
    click.option("--env-file", type=click.File("r"), multiple=True, help="Read environment variables from a file"),
    _list("--host", type_=HOST, help_="Lines for /etc/hosts (name:address)"),
    _list("-l", "--label", type_=LABEL, help_="Service labels"),
    _list("--mount", type_=MOUNT, help_="Mounts (type=bind|volume|tmpfs,source=…,target=…,readonly)"),
    _list("--network", type_=NETWORK, help_="Networks (NAME, or name=NAME,alias=ALIAS)"),
    _list("--placement-pref", type_=PREFERENCE, help_="Placement preferences (spread=node.labels.KEY)"),
    _list("-p", "--publish", type_=PORTS, help_="Ports (8080:80/tcp, or published=8080,target=80,mode=ingress|host)"),
    _list("--sysctl", type_=SYSCTL, help_="Kernel parameters of the container"),
]

UPDATE_LISTS: list[Decorator[Any]] = [
    _list("--constraint-add", help_="Add a placement constraint"),
    _list("--constraint-rm", help_="Remove a placement constraint"),
    _list("--container-label-add", type_=LABEL, help_="Add or change a container label"),
    _list("--container-label-rm", help_="Remove a container label by its key"),
    _list("--dns-add", help_="Add a DNS server"),
    _list("--dns-rm", help_="Remove a DNS server"),
    _list("--env-add", help_="Add or change an environment variable"),
    _list("--env-rm", help_="Remove an environment variable"),
    _list("--host-add", type_=HOST, help_="Add a line for /etc/hosts (name:address)"),
    _list("--host-rm", type_=HOST, help_="Remove a line of /etc/hosts (name:address)"),
    _list("--label-add", type_=LABEL, help_="Add or change a service label"),
    _list("--label-rm", help_="Remove a service label by its key"),
    _list("--mount-add", type_=MOUNT, help_="Add or change a mount"),
    _list("--mount-rm", help_="Remove a mount by its target path"),
    _list("--network-add", type_=NETWORK, help_="Add a network"),
    _list("--network-rm", help_="Remove a network"),
    _list("--placement-pref-add", type_=PREFERENCE, help_="Add a placement preference"),
    _list("--placement-pref-rm", type_=PREFERENCE, help_="Remove a placement preference"),
    _list("--publish-add", type_=PORTS, help_="Add a published port"),
    _list("--publish-rm", help_="Remove a published port by its target port (80, 53/udp)"),
    _list("--sysctl-add", type_=SYSCTL, help_="Add or change a kernel parameter"),
    _list("--sysctl-rm", help_="Remove a kernel parameter"),
]


def declared(options: list[Decorator[Any]]) -> Decorator[Any]:
    """Put a list of options on a command, in that order."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate

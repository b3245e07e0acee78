"""The kinds of flags of `service create` and `service update`, and the types of their values."""

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


def option(*names: str, type_: Any = str, help_: str) -> Decorator[Any]:
    """One value; None when absent."""
    return click.option(*names, type=type_, default=None, help=help_)


def switch(name: str, *, help_: str, short: str = "") -> Decorator[Any]:
    """True with `--name`, False with `--no-name`, None when absent."""
    declaration = f"-{short}/ " if short else ""
    names = (*((declaration,) if short else ()), f"--{name}/--no-{name}")
    return click.option(name.replace("-", "_"), *names, default=None, help=help_)


def listed(*names: str, type_: Any = str, help_: str) -> Decorator[Any]:
    """A flag that may be given often."""
    return click.option(*names, type=type_, multiple=True, help=help_)

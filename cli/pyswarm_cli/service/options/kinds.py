"""The kinds of flags of `service create` and `service update`, and the types of their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pyswarm_cli.params import Parsed
from pyswarm_cli.parse import attachments, containers, files, mounts, pairs, ports, quantities
from pyswarm_common.errors import InvalidArgument

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]

DURATION = Parsed("duration", quantities.duration_s)
SIZE = Parsed("bytes", quantities.size_bytes)
CPUS = Parsed("decimal", quantities.nano_cpus)
PORTS = Parsed("port", ports.ports)
MOUNT = Parsed("mount", mounts.mount)
NETWORK = Parsed("network", attachments.network)
PREFERENCE = Parsed("pref", attachments.preference)
HOST = Parsed("host:ip", attachments.host_entry)
LABEL = Parsed("key=value", lambda text: pairs.key_value(text, "label"))
SYSCTL = Parsed("key=value", lambda text: pairs.key_value(text, "sysctl"))
COUNT = Parsed("n", quantities.count)
LOG_OPTION = Parsed("key=value", lambda text: pairs.key_value(text, "log-opt"))
SWAP = Parsed("bytes", lambda text: -1 if text == "-1" else quantities.size_bytes(text))
ULIMIT = Parsed("ulimit", containers.ulimit)
DEVICE = Parsed("device", containers.device)
SECRET = Parsed("secret", files.secret)
CONFIG = Parsed("config", files.config)
RATIO = Parsed("ratio", quantities.ratio)
ORDER = click.Choice(["start-first", "stop-first"])


def _security_option(text: str) -> containers.SecurityOption:
    """With the profile's text in place of its file."""
    option = containers.security_option(text)
    if option.name != "seccomp_profile" or option.value in ("", containers.UNCONFINED):
        return option
    path = str(option.value)
    try:
        with Path(path).open("rb") as file:
            data = file.read(containers.MAX_PROFILE_BYTES + 1)
    except OSError as error:
        raise InvalidArgument(f"opening seccomp profile ({path}) failed: {error.strerror}") from None
    return containers.SecurityOption(option.name, containers.seccomp_profile(path, data))


SECURITY = Parsed("option", _security_option)


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

"""click parameter types that use our parsers, and options that many commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from pyswarm_cli.failures import WrongValue
from pyswarm_cli.parse.quantities import duration_s
from pyswarm_common.errors import InvalidArgument


class Parsed(click.ParamType):  # type: ignore[type-arg]  # generic only in newer stubs
    """A type that a function of `pyswarm_cli.parse` reads."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parsed value; what is parsed already stays."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except InvalidArgument as error:
            raise WrongValue(value, str(error), param, ctx) from error


AVAILABILITY = click.Choice(["active", "pause", "drain"])
DURATION = Parsed("duration", duration_s)


def filters(value: tuple[str, ...], known: tuple[str, ...]) -> dict[str, list[str]]:
    """`--filter key=value` as lists by key."""
    out: dict[str, list[str]] = {}
    for text in value:
        key, equals, wanted = text.partition("=")
        if not equals:
            raise InvalidArgument(f'invalid filter "{text}": write NAME=VALUE')
        if key not in known:
            raise InvalidArgument(f'invalid filter "{key}": this list knows {", ".join(known)}')
        out.setdefault(key, []).append(wanted)
    return out


format_option = click.option(
    "--format",
    "format_",
    metavar="FORMAT",
    default="",
    help='"table [TEMPLATE]", "json", or a Go-style template',
)
filter_option = click.option("-f", "--filter", "filter_", multiple=True, metavar="NAME=VALUE", help="Show only these")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Only ids")
no_trunc_option = click.option("--no-trunc", is_flag=True, help="Do not shorten")
detach_option = click.option("-d", "--detach", is_flag=True, help="Do not wait for the service to converge")

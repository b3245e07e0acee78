"""A command group whose name alone is a command too: `backup FILE` beside `backup ls`."""

from __future__ import annotations

from typing import Any

import click

from pyswarm_cli.lazy import LazyGroup


class DefaultGroup(LazyGroup):
    """Whatever does not begin with the name of a command belongs to `default`."""

    def __init__(self, *args: Any, default: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self._table and args[0] not in ctx.help_option_names):
            args = [self._default, *args]
        return super().parse_args(ctx, args)

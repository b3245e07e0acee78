"""Command groups that import a command only when it runs, so that `--help` and small commands start fast.

A group is a table: name -> (module:attribute, one line of help). Who acts next: the module named there.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

Table = Mapping[str, tuple[str, str]]

_ALIASES = {"list": "ls", "remove": "rm"}
"""Docker's other words, in every group that has the command; help does not show them."""


class LazyGroup(click.Group):
    """A click group whose commands are a table of places."""

    def __init__(self, *args: Any, table: Table, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self._table.get(cmd_name) or self._table.get(_ALIASES.get(cmd_name, ""))
        if place is None:
            return None
        module, _, attribute = place[0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"pyswarm_cli.{module}"), attribute)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, help_) for name, (_, help_) in self._table.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def group(name: str, help_: str, table: Table) -> LazyGroup:
    """A group that shows its help when it is called alone."""
    return LazyGroup(name, help=help_, table=table, no_args_is_help=True)

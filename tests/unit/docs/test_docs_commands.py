"""docs/cli.md names every command that there is, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from pyswarm_cli.main import cli

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command that is no group: "init", "node ls"."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name))


def named() -> set[str]:
    """What the table names, as code."""
    section = PAGE.read_text().partition("## Every command\n")[2].partition("\n## ")[0]
    return set(re.findall(r"`([a-z][a-z -]*)`", section))


def test_every_command_is_in_the_page() -> None:
    present = set(commands(cli))
    told_once = {name for name in present if name.startswith("swarm ") and name.removeprefix("swarm ") in present}
    assert len(present) > 40
    assert present - told_once - named() == set()


def test_the_page_names_nothing_that_is_not_there() -> None:
    present = set(commands(cli))
    groups = {" ".join(name.split()[:length]) for name in present for length in (1, 2)}
    assert named() - present - groups == set()

"""Flags with `=true` and `=false`, as docker's users write them."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from pyswarm_cli.boolean_flags import DockerCommand


def read(*argv: str, interspersed: bool = True) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    @click.command(cls=DockerCommand, context_settings={"allow_interspersed_args": interspersed})
    @click.option("--init/--no-init", default=None)
    @click.option("-d", "--detach", is_flag=True)
    @click.option("--name")
    @click.argument("rest", nargs=-1, type=click.UNPROCESSED)
    def command(**values: Any) -> None:
        seen.update(values)

    result = CliRunner().invoke(command, argv)
    assert result.exit_code == 0, result.output
    return seen


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--init"], {"init": True}),
        (["--init=true", "-d=1"], {"init": True, "detach": True}),
        (["--init=false", "--detach=false"], {"init": False, "detach": False}),
        (["--no-init"], {"init": False}),
        (["--name", "--init=false"], {"name": "--init=false", "init": None}),
        (["--name=x=true"], {"name": "x=true"}),
        (["--", "--init=true"], {"init": None, "rest": ("--init=true",)}),
    ],
)
def test_values_of_flags(argv: list[str], expected: dict[str, Any]) -> None:
    seen = read(*argv)
    assert {name: seen[name] for name in expected} == expected


def test_what_follows_the_image_is_not_ours() -> None:
    seen = read("--init=true", "image", "--init=false", interspersed=False)
    assert seen["init"] is True
    assert seen["rest"] == ("image", "--init=false")


def test_a_value_that_is_none() -> None:
    @click.command(cls=DockerCommand)
    @click.option("--init/--no-init")
    def command(init: bool) -> None:
        raise AssertionError(init)

    result = CliRunner().invoke(command, ["--init=maybe"])
    assert result.exit_code == 2
    assert 'invalid argument "maybe" for "--init" flag' in result.output

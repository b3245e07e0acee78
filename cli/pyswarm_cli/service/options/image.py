"""Flags of the image: how its name is looked up, and with whose credentials."""

from __future__ import annotations

from typing import Any

import click

from pyswarm_cli.service.options.kinds import Decorator

SHARED: list[Decorator[Any]] = [
    click.option(
        "--no-resolve-image", is_flag=True, help="Do not ask the registry for the image's digest and platforms"
    ),
    click.option(
        "--with-registry-auth", is_flag=True, help="Send the credentials of docker login to the agents that pull"
    ),
]

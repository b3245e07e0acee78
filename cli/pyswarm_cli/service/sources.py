"""The word to a user who lets in a service that does not exist: it may be on its way, or be a slip of the pen."""

from __future__ import annotations

import click

from pyswarm_cli.connection import Connection
from pyswarm_cli.listing import all_services
from pyswarm_cli.service.parts.policy import unknown_sources
from pyswarm_common.model import ServiceSpec


def warn_of_unknown_sources(connection: Connection, spec: ServiceSpec) -> None:
    """Says so; refuses nothing."""
    if not spec.endpoint.allow_from:
        return
    known = {service.spec.name for service, _status in all_services(connection)}
    for name in unknown_sources(spec.endpoint.allow_from, spec.name, known):
        click.echo(f"Warning: no service is named {name} yet: nobody is let in under that name until one is", err=True)

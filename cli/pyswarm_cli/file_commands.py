"""The commands of secrets and configs: the same for both but for their names, so they are made here, once.

Data comes from a file or standard input, never from an argument, which every user of the machine could read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pyswarm.v1 import secrets_pb2, types_pb2
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.failures import each
from pyswarm_cli.listing import options
from pyswarm_cli.output.rows import show, show_objects
from pyswarm_cli.params import filter_option, filters, format_option, quiet_option
from pyswarm_cli.parse.pairs import mapping
from pyswarm_cli.views import files as view
from pyswarm_common.errors import InvalidArgument

MAX_BYTES = 1000 * 1024


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind's name in lower case ("secret"); messages and methods are found by it."""

    noun: str

    @property
    def title(self) -> str:
        return self.noun.capitalize()

    def call(self, connection: Connection, verb: str, **fields: Any) -> Any:
        """`CreateSecret`, `CreateConfig` and so on."""
        name = f"{verb}{self.title}"
        request = getattr(secrets_pb2, f"{name}Request")(**fields)
        return call(getattr(connection.secrets, name), request)

    def all(self, connection: Connection, wanted: dict[str, list[str]], superseded: bool) -> Iterator[Any]:
        """Every one that passes the filters."""
        listed = options(wanted)
        while True:
            request = getattr(secrets_pb2, f"List{self.title}sRequest")(options=listed, superseded=superseded)
            response = call(getattr(connection.secrets, f"List{self.title}s"), request)
            yield from getattr(response, f"{self.noun}s")
            if not response.next_page_token:
                return
            listed.page_token = response.next_page_token


def read_data(file: str) -> bytes:
    """Of the file, or of standard input (`-`)."""
    if file == "-":
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        with Path(file).open("rb") as source:
            data = source.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InvalidArgument(f"{file} holds more than {MAX_BYTES} bytes, which is the most there may be")
    return data


def create_command(kind: Kind) -> click.Command:
    """`secret create`, `config create`."""

    @click.command(help=f"Create a {kind.noun} from a file or standard input (-).")
    @click.option("-l", "--label", multiple=True, metavar="KEY=VALUE", help=f"{kind.title} labels")
    @click.option("--template-driver", default="", help="Fill in placeholders for each task (golang)")
    @click.argument("name", metavar=kind.noun.upper())
    @click.argument("file", metavar="FILE|-")
    @click.pass_context
    def create(ctx: click.Context, label: tuple[str, ...], template_driver: str, name: str, file: str) -> None:
        spec = types_pb2.FileSpec(
            name=name, labels=mapping(label, "label"), templating=template_driver, data=read_data(file)
        )
        click.echo(getattr(kind.call(connect(ctx), "Create", spec=spec), kind.noun).id)

    return create


def update_command(kind: Kind) -> click.Command:
    """`secret update`, `config update`: ours, docker has none."""

    @click.command(
        help=f"Make the next version of a {kind.noun}; services that follow it roll to it. Or change its labels."
    )
    @click.option("--label-add", multiple=True, metavar="KEY=VALUE", help="Add or change labels")
    @click.option("--label-rm", multiple=True, metavar="KEY", help="Remove labels")
    @click.argument("name", metavar=kind.noun.upper())
    @click.argument("file", metavar="[FILE|-]", required=False)
    @click.pass_context
    def update(
        ctx: click.Context, label_add: tuple[str, ...], label_rm: tuple[str, ...], name: str, file: str | None
    ) -> None:
        if file is None and not label_add and not label_rm:
            raise InvalidArgument("nothing to do: give a FILE with the new data, or --label-add or --label-rm")
        connection = connect(ctx)
        if file is not None:
            _rotate(connection, kind, name, read_data(file))
        if label_add or label_rm:
            _relabel(connection, kind, name, mapping(label_add, "label"), label_rm)

    return update


def _rotate(connection: Connection, kind: Kind, name: str, data: bytes) -> None:
    before = getattr(kind.call(connection, "Get", **{kind.noun: name}), kind.noun)
    response = kind.call(connection, "Rotate", **{kind.noun: name}, data=data)
    newest = getattr(response, kind.noun)
    if newest.number == before.number:
        click.echo(f"{newest.spec.name}: version {newest.number} has this data already", err=True)
        return
    click.echo(newest.id)
    if response.services:
        click.echo(f"version {newest.number}; these services roll to it: {', '.join(response.services)}", err=True)


def _relabel(connection: Connection, kind: Kind, name: str, add: dict[str, str], remove: tuple[str, ...]) -> None:
    current = getattr(kind.call(connection, "Get", **{kind.noun: name}), kind.noun)
    labels = {key: value for key, value in current.spec.labels.items() if key not in remove} | add
    spec = types_pb2.FileSpec(name=current.spec.name, templating=current.spec.templating, labels=labels)
    kind.call(connection, "Update", **{f"{kind.noun}_id": current.id}, version=current.meta.version, spec=spec)
    click.echo(current.spec.name)


def list_command(kind: Kind) -> click.Command:
    """`secret ls`, `config ls`."""

    @click.command(help=f"List {kind.noun}s.")
    @click.option("-a", "--all", "everything", is_flag=True, help="Earlier versions as well")
    @filter_option
    @format_option
    @quiet_option
    @click.pass_context
    def list_(ctx: click.Context, everything: bool, filter_: tuple[str, ...], format_: str, quiet: bool) -> None:
        wanted = filters(filter_, ("id", "name", "label"))
        found = sorted(kind.all(connect(ctx), wanted, everything), key=lambda item: (item.spec.name, -item.number))
        rows = [view.row(item, time.time()) for item in found]
        click.echo(show(rows, view.COLUMNS, format_, quiet=quiet), nl=False)

    return list_


def inspect_command(kind: Kind) -> click.Command:
    """`secret inspect`, `config inspect`."""

    @click.command(help=f"Show everything about {kind.noun}s.")
    @click.option("-f", "--format", "format_", metavar="FORMAT", default="", help="A Go-style template")
    @click.option("--pretty", is_flag=True, help="In a form for people")
    @click.argument("names", metavar=f"{kind.noun.upper()}...", nargs=-1, required=True)
    @click.pass_context
    def inspect(ctx: click.Context, format_: str, pretty: bool, names: tuple[str, ...]) -> None:
        if pretty and format_:
            raise InvalidArgument("--format is incompatible with human friendly format: leave out one of them")
        connection = connect(ctx)
        found = [getattr(kind.call(connection, "Get", **{kind.noun: name}), kind.noun) for name in names]
        if pretty:
            click.echo("\n".join(view.pretty(item) for item in found), nl=False)
        else:
            click.echo(show_objects([view.inspected(item) for item in found], format_), nl=False)

    return inspect


def remove_command(kind: Kind) -> click.Command:
    """`secret rm`, `config rm`."""

    @click.command(help=f"Remove {kind.noun}s, with all their versions.")
    @click.argument("names", metavar=f"{kind.noun.upper()}...", nargs=-1, required=True)
    @click.pass_context
    def remove(ctx: click.Context, names: tuple[str, ...]) -> None:
        connection = connect(ctx)

        def act(name: str) -> None:
            kind.call(connection, "Remove", **{kind.noun: name})
            click.echo(name)

        each(names, act)

    return remove

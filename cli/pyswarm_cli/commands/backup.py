"""`pyswarm backup [FILE] | inspect | ls | key`."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pyswarm.v1 import backup_pb2
from pyswarm_cli.backup import files
from pyswarm_cli.backup.secret_input import key_for, new_passphrase
from pyswarm_cli.connection import Connection, answers, call, connect, stream
from pyswarm_cli.output.rows import show
from pyswarm_cli.output.words import ago, human_duration, human_size
from pyswarm_cli.params import format_option, quiet_option
from pyswarm_cli.views import backups as view
from pyswarm_common.backup.container import SUFFIX, Reader
from pyswarm_common.backup.keys import SALT_BYTES, PassphraseParams, derive
from pyswarm_common.codec import timestamp
from pyswarm_common.errors import InvalidArgument, Unavailable

_PROGRESS_S = 0.2


@click.command(help="Write everything the managers know into one sealed file; `-` is standard output.")
@click.option("--passphrase", is_flag=True, help="Seal with a passphrase, asked for or read from standard input")
@click.option(
    "--passphrase-file", metavar="FILE", default="", help="Seal with the passphrase in this file's first line"
)
@click.option("-q", "--quiet", is_flag=True, help="Only the file's name")
@click.argument("file", metavar="[FILE|-]", required=False, default="")
@click.pass_context
def create(ctx: click.Context, passphrase: bool, passphrase_file: str, quiet: bool, file: str) -> None:
    """`backup`."""
    if not file and ctx.get_parameter_source("file") is not ParameterSource.DEFAULT:
        raise InvalidArgument("the name of the file is empty: leave it out for a name with the date, or give one")
    if file == "-" and sys.stdout.isatty():
        raise InvalidArgument("a backup is not for a terminal: give a file, or redirect standard output")
    if file not in ("", "-"):
        files.check_free(Path(file))
    request = backup_pb2.CreateBackupRequest()
    if passphrase or passphrase_file:
        request.passphrase.CopyFrom(_derived(new_passphrase(passphrase_file)))
    responses = answers(stream(connect(ctx).backup.CreateBackup, request))
    first = next(responses, None)
    if first is None:
        raise Unavailable("the manager sent no backup: look at its log")
    target = file or _default_name(first.cluster_id)
    show_progress = not quiet and sys.stderr.isatty()
    parts = _parts(first, responses, show_progress)
    size = files.pipe(sys.stdout.buffer, parts) if target == "-" else files.save(Path(target), parts)
    _say_done(first, target, size, quiet)


def _derived(passphrase: str) -> backup_pb2.PassphraseKey:
    params = PassphraseParams(secrets.token_bytes(SALT_BYTES))
    return backup_pb2.PassphraseKey(
        salt=params.salt, log2_n=params.log2_n, r=params.r, p=params.p, key=derive(passphrase, params)
    )


def _default_name(cluster_id: str) -> str:
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return f"pyswarm-backup-{cluster_id}-{moment}{SUFFIX}"


def _parts(first: Any, responses: Iterator[Any], show_progress: bool) -> Iterator[bytes]:
    """The bytes, with a line on the terminal about how far they are."""
    yield first.data
    said_at = time.monotonic()
    for response in responses:
        yield response.data
        if show_progress and time.monotonic() - said_at > _PROGRESS_S:
            said_at = time.monotonic()
            click.echo(f"\r{response.objects_done} of {response.objects} objects", nl=False, err=True)
    if show_progress:
        click.echo("\r\033[K", nl=False, err=True)


def _say_done(first: Any, target: str, size: int, quiet: bool) -> None:
    """On standard error when the backup itself went to standard output."""
    err = target == "-"
    if quiet:
        if not err:
            click.echo(target)
        return
    where = "standard output" if err else target
    click.echo(
        f"Backed up swarm {first.cluster_id} at index {first.index}: {first.objects} objects, "
        f"{human_size(size)}, to {where}",
        err=err,
    )
    if first.key_id:
        click.echo(
            f"It opens with the swarm's backup key {first.key_id}, which must be kept outside of the swarm: "
            "`pyswarm backup key` shows it.",
            err=True,
        )


@click.command(help="Check a backup and show what is in it. Without its key only its header can be read.")
@click.option("--key-file", metavar="FILE", default="", help="The backup key or passphrase is this file's first line")
@click.option("--format", "format_", metavar="FORMAT", default="", help='"json", or text for people [text]')
@click.argument("file", metavar="FILE")
def inspect(key_file: str, format_: str, file: str) -> None:
    """`backup inspect`."""
    if format_ not in ("", "json"):
        raise InvalidArgument(f'unknown format "{format_}": this command knows json')
    with Path(file).open("rb") as source:
        reader, summary = Reader(source), None
        if key_file:
            summary = reader.summary(key_for(reader.header, key_file))
            for _ in reader.pieces():
                pass
        else:
            reader.check()
    facts = view.described(file, reader.size_bytes, reader.header, summary)
    if format_ == "json":
        click.echo(json.dumps(facts, indent=4))
    else:
        click.echo("\n".join(view.lines(facts, reader.header.created_at, time.time())))


@click.command(help="List the automatic backups on this manager's disk.")
@format_option
@quiet_option
@click.pass_context
def list_backups(ctx: click.Context, format_: str, quiet: bool) -> None:
    """`backup ls`."""
    listed = call(connect(ctx).backup.ListBackups, backup_pb2.ListBackupsRequest())
    now = time.time()
    rows = [view.row(backup, now) for backup in listed.backups]
    click.echo(show(rows, view.COLUMNS, format_, quiet=quiet), nl=False)
    if not quiet and not format_:
        sys.stdout.flush()
        click.echo(_outlook(listed, now), err=True)


def _outlook(listed: Any, now: float) -> str:
    """When the next one comes, or why the last did not."""
    if not listed.interval_s:
        return "Automatic backups are off: `pyswarm update --backup-interval 12h` turns them on."
    if listed.error:
        return f"The last automatic backup failed {ago(timestamp(listed.failed_at), now)}: {listed.error}"
    if not listed.HasField("next_at"):
        return f"An automatic backup is being made in {listed.directory}."
    wait = human_duration(max(0.0, timestamp(listed.next_at) - now)).lower()
    return f"The next one is made in {wait}, in {listed.directory}; {listed.kept} are kept."


@click.command(help="Show the key that opens backups made without a passphrase. Keep it outside of the swarm.")
@click.option("-q", "--quiet", is_flag=True, help="Only the key")
@click.option("--rotate", is_flag=True, help="Make a new key first; older backups still open only with the old one")
@click.pass_context
def key(ctx: click.Context, quiet: bool, rotate: bool) -> None:
    """`backup key`."""
    answer = _key(connect(ctx), rotate)
    if quiet:
        click.echo(answer.key)
        return
    if rotate:
        click.echo("Successfully rotated the backup key.\n")
    click.echo(
        f"Backups made without a passphrase open with this key ({answer.key_id}):\n\n    {answer.key}\n\n"
        "Keep it outside of the swarm, like a password: after the loss of all managers nothing else opens them."
    )
    if rotate:
        click.echo("Keep the old key as long as there are backups that were made with it.")


def _key(connection: Connection, rotate: bool) -> Any:
    return call(connection.backup.GetBackupKey, backup_pb2.GetBackupKeyRequest(rotate=rotate))

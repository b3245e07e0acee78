"""`pyswarm unlock`, `unlock-key` and `operator rotate-encryption-key`: the locks on the managers' keys."""

from __future__ import annotations

import sys

import click

from pyswarm.v1 import node_pb2, security_pb2
from pyswarm_cli.connection import call, connect

_SLOW_CALL_S = 60.0
_MAX_LINE = 4096

UNLOCK_HELP = """To unlock a swarm manager after it restarts, run the `pyswarm unlock`
command and provide the following key:

    {key}

Please remember to store this key in a password manager, since without it you
will not be able to restart the manager."""


@click.command(help="Unlock this manager: it goes on where it was when it stopped. The key is asked for, or on stdin.")
@click.pass_context
def unlock(ctx: click.Context) -> None:
    """Unlock this manager."""
    connection = connect(ctx)
    if sys.stdin.isatty():
        key = click.prompt("Please enter unlock key", hide_input=True, err=True)
    else:
        key = sys.stdin.buffer.readline(_MAX_LINE).decode(errors="replace")
    call(connection.daemon.Unlock, node_pb2.UnlockRequest(unlock_key=key.strip()), _SLOW_CALL_S)


@click.command(help="Show (or rotate) the key that unlocks managers after they restart.")
@click.option("-q", "--quiet", is_flag=True, help="Only the key")
@click.option("--rotate", is_flag=True, help="Make a new key first")
@click.pass_context
def unlock_key(ctx: click.Context, quiet: bool, rotate: bool) -> None:
    """Show the unlock key."""
    security = connect(ctx).security
    if rotate:
        key = call(security.RotateUnlockKey, security_pb2.RotateUnlockKeyRequest()).unlock_key
    else:
        shown = call(security.GetUnlockKey, security_pb2.GetUnlockKeyRequest())
        key = shown.unlock_key
        if shown.is_last_known:
            click.echo("There is no leader: this is the unlock key as this manager knew it last.", err=True)
    if quiet:
        click.echo(key)
        return
    if rotate:
        click.echo("Successfully rotated manager unlock key.\n")
    click.echo(UNLOCK_HELP.format(key=key))
    if rotate:
        click.echo("\nKeep the old key too, until every manager is up: one that was down needs it to start.")


@click.command(help="Make new keys for what the managers keep on their disks; they work on meanwhile.")
@click.pass_context
def rotate_encryption_key(ctx: click.Context) -> None:
    """Replace the keys at rest."""
    call(connect(ctx).security.RotateEncryptionKey, security_pb2.RotateEncryptionKeyRequest())
    click.echo("Each manager makes a new key for its log now, and seals with it what the old one sealed.")

"""`pyswarm ca` and `pyswarm join-token create | ls | rm`: the root certificate, and tokens with limits."""

from __future__ import annotations

import hashlib
import sys
import time
from typing import Any

import click

from pyswarm.v1 import security_pb2, types_pb2
from pyswarm_cli.cluster_settings import change_cluster, manager_address
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.failures import FromDaemon
from pyswarm_cli.output.rows import show
from pyswarm_cli.params import DURATION, format_option, quiet_option
from pyswarm_cli.pem_files import read_pem
from pyswarm_cli.views import security as view
from pyswarm_common.errors import FailedPrecondition, Unavailable

_POLL_S = 0.5
_BAR = 50
_OVERTAKEN = "another rotation of the root was begun meanwhile: see `pyswarm ca`"
_DAY_S = 24 * 3600.0


# ---------------------------------------------------------------- ca


@click.command(help="Show the root certificate of the swarm, or replace it.")
@click.option("--rotate", is_flag=True, help="Replace the root: by --ca-cert and --ca-key, or by a generated one")
@click.option("--ca-cert", metavar="FILE", help="PEM: the new CA, then what leads from it to its root")
@click.option("--ca-key", metavar="FILE", help="PEM: the key of the new CA")
@click.option("--cert-expiry", type=DURATION, help="Validity of node certificates (ms|s|m|h)")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until every node has a certificate of the new root")
@click.option("-q", "--quiet", is_flag=True, help="No progress")
@click.pass_context
def ca(
    ctx: click.Context,
    rotate: bool,
    ca_cert: str | None,
    ca_key: str | None,
    cert_expiry: float | None,
    detach: bool,
    quiet: bool,
) -> None:
    """Show or replace the root certificate."""
    given = {"ca-cert": ca_cert, "ca-key": ca_key, "cert-expiry": cert_expiry}
    if not rotate:
        for flag, value in given.items():
            if value is not None:
                raise click.UsageError(f"`--{flag}` flag requires the `--rotate` flag to update the CA")
        click.echo(_root(connect(ctx)).root_ca_cert.decode(), nl=False)
        return
    if (ca_cert is None) != (ca_key is None):
        raise click.UsageError(
            "the --ca-cert flag requires that a --ca-key flag be provided as well, and the other way"
        )
    request = security_pb2.RotateRootRequest(ca_cert=read_pem(ca_cert), ca_key=read_pem(ca_key))
    connection = connect(ctx)
    if cert_expiry is not None:
        change_cluster(connection, lambda spec: setattr(spec, "node_cert_expiry_s", cert_expiry))
    root = call(connection.security.RotateRoot, request).root
    if detach:
        return
    click.echo(_follow(connection, root, quiet=quiet).root_ca_cert.decode(), nl=False)


def _root(connection: Connection) -> Any:
    return call(connection.security.GetRoot, security_pb2.GetRootRequest()).root


def _follow(connection: Connection, root: Any, *, quiet: bool) -> Any:
    """Until the new root is the root; says how far it is. Ctrl-C leaves it to the managers."""
    target, shown = root.target_ca_cert, ""
    if not quiet and target:
        click.echo(f"desired root digest: sha256:{hashlib.sha256(target).hexdigest()}", err=True)
    while root.target_ca_cert:
        if root.target_ca_cert != target:
            raise FailedPrecondition(_OVERTAKEN)
        shown = _show_progress(root, shown, quiet=quiet)
        time.sleep(_POLL_S)
        root = _patiently(connection)
    if target and root.root_ca_cert != target:
        raise FailedPrecondition(_OVERTAKEN)
    if not quiet:
        _show_progress(root, shown, quiet=False)
        click.echo("", err=True)
    return root


def _patiently(connection: Connection) -> Any:
    """The managers elect a leader now and then: the rotation goes on with the next."""
    while True:
        try:
            return _root(connection)
        except FromDaemon as error:
            if not isinstance(error.refusal, Unavailable):
                raise
            time.sleep(_POLL_S)


def _show_progress(root: Any, shown: str, *, quiet: bool) -> str:
    line = view.progress(root, _BAR)
    if quiet or line == shown:
        return shown
    is_terminal = sys.stderr.isatty()
    click.echo(f"\r\x1b[K{line}" if is_terminal else line, nl=not is_terminal, err=True)
    return line


# ---------------------------------------------------------------- join-token create, ls, rm


@click.command(help="Make a join token with an expiry and a number of uses. It is shown this once.")
@click.option("--role", type=click.Choice(["worker", "manager"]), required=True)
@click.option("--expires", type=DURATION, default=None, help="How long it is good for (s|m|h; default 24h, 0 for ever)")
@click.option("--uses", type=click.IntRange(0, 1_000_000), default=0, help="How many machines may join (0: any number)")
@click.option("--label", default="", help="What it is for")
@click.option("-q", "--quiet", is_flag=True, help="Only the token")
@click.pass_context
def create_token(ctx: click.Context, role: str, expires: float | None, uses: int, label: str, quiet: bool) -> None:
    """Make a join token."""
    connection = connect(ctx)
    made = call(
        connection.security.CreateJoinToken,
        security_pb2.CreateJoinTokenRequest(
            role=types_pb2.NODE_ROLE_MANAGER if role == "manager" else types_pb2.NODE_ROLE_WORKER,
            expires_in_s=_DAY_S if expires is None else expires,
            uses=uses,
            label=label,
        ),
    )
    if quiet:
        click.echo(made.token)
        return
    click.echo(f"Made join token {made.join_token.id}: {view.limits(made.join_token, time.time())}.\n")
    click.echo(f"To add a {role} to this swarm, run the following command:\n")
    click.echo(f"    pyswarm join --token {made.token} {manager_address(connection)}\n")


@click.command(help="List the join tokens with an expiry or a number of uses.")
@quiet_option
@format_option
@click.pass_context
def list_tokens(ctx: click.Context, quiet: bool, format_: str) -> None:
    """List join tokens."""
    listed = call(connect(ctx).security.ListJoinTokens, security_pb2.ListJoinTokensRequest())
    now = time.time()
    click.echo(
        show([view.row(token, now) for token in listed.join_tokens], view.COLUMNS, format_, quiet=quiet), nl=False
    )


@click.command(help="Remove join tokens: nobody can join with them any more. Nodes that joined stay.")
@click.argument("tokens", metavar="ID...", nargs=-1, required=True)
@click.pass_context
def remove_tokens(ctx: click.Context, tokens: tuple[str, ...]) -> None:
    """Remove join tokens."""
    connection = connect(ctx)
    for token in tokens:
        removed = call(connection.security.RemoveJoinToken, security_pb2.RemoveJoinTokenRequest(id=token))
        click.echo(removed.id)

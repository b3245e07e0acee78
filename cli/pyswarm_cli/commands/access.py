"""`pyswarm token …` and `pyswarm client-cert …`: how people and programs elsewhere may use the swarm."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from pyswarm.v1 import access_pb2
from pyswarm_cli.connection import call, connect
from pyswarm_cli.failures import each
from pyswarm_cli.output.rows import show
from pyswarm_cli.params import Parsed, format_option, quiet_option
from pyswarm_cli.parse.moments import lifetime_s
from pyswarm_cli.remote import CERT_FILE, KEY_FILE, ROOT_FILE
from pyswarm_cli.secret_lines import read_api_token
from pyswarm_cli.views import access as access_view
from pyswarm_common.errors import InvalidArgument

_ROLE = click.Choice(["viewer", "operator", "admin"])


def _lifetime_s(text: str) -> float:
    seconds = lifetime_s(text)
    if not seconds:
        raise InvalidArgument("it would have expired already: leave the flag out for the default")
    return seconds


_LIFETIME = Parsed("duration", _lifetime_s)
_role_option = click.option("--role", type=_ROLE, required=True, help="What its holder may do")
_name_option = click.option("--name", required=True, help="Whose it is; the audit log says this name")


def _role(text: str) -> Any:
    return access_pb2.PersonRole.Value(f"PERSON_ROLE_{text.upper()}")


# ---------------------------------------------------------------- tokens


@click.command(help="Make an API token, for the HTTPS port. It is shown once, on standard output, and never again.")
@_role_option
@_name_option
@click.option("--expires", type=_LIFETIME, default=None, help="How long it holds (30d, 12h) [for ever]")
@click.pass_context
def create_token(ctx: click.Context, role: str, name: str, expires: float | None) -> None:
    """`token create`."""
    request = access_pb2.CreateTokenRequest(name=name, role=_role(role), lifetime_s=expires or 0.0)
    made = call(connect(ctx).access.CreateToken, request)
    click.echo(made.token)
    click.echo("Keep it: it cannot be shown again. `pyswarm token rm` ends it.", err=True)


@click.command(help="List API tokens.")
@format_option
@quiet_option
@click.pass_context
def list_tokens(ctx: click.Context, format_: str, quiet: bool) -> None:
    """`token ls`."""
    found = call(connect(ctx).access.ListTokens, access_pb2.ListTokensRequest()).credentials
    _show(found, format_, quiet=quiet)


@click.command(help="Remove API tokens: they are refused from then on, and the certificates made from them.")
@click.argument("tokens", metavar="TOKEN...", nargs=-1, required=True)
@click.pass_context
def remove_tokens(ctx: click.Context, tokens: tuple[str, ...]) -> None:
    """`token rm`: by id or name, never by the token itself."""
    connection = connect(ctx)

    def act(name: str) -> None:
        click.echo(call(connection.access.RemoveToken, access_pb2.RemoveTokenRequest(token=name)).id)

    each(tokens, act)


@click.command(
    help="Make a client certificate of an API token, for an hour at most: for what speaks gRPC, and for this command "
    "(-H tcp://… --tls-dir DIR)."
)
@click.option("--ca", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The root (`pyswarm ca`)")
@click.option("--token-file", default="-", metavar="FILE", help="Where the token is [standard input]")
@click.option("--expires", type=_LIFETIME, default=None, help="How long it holds (10m) [1h]")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where to write")
@click.argument("manager", metavar="HOST[:2377]")
def exchange_token(ca: Path, token_file: str, expires: float | None, output: Path, manager: str) -> None:
    """`token exchange`."""
    from pyswarm_cli.exchange import exchange  # noqa: PLC0415 - only here
    from pyswarm_cli.remote import read_address  # noqa: PLC0415
    from pyswarm_common.identity import generate_key, key_to_pem, make_csr  # noqa: PLC0415

    check_empty(output)
    host, port = read_address(manager)
    root, key = ca.read_bytes(), generate_key()
    token = read_api_token(token_file)
    request = access_pb2.ExchangeTokenRequest(csr=make_csr(key), lifetime_s=expires or 0.0)
    answer = exchange(host, port + 1, root, token, request.SerializeToString())
    made = access_pb2.ExchangeTokenResponse.FromString(answer)
    write_credentials(output, key_to_pem(key), made.certificate, made.root_ca_cert)
    click.echo(output)


# ---------------------------------------------------------------- client certificates


@click.command(help="Make a client certificate, for mTLS on the managers' port. Its key is made here and stays here.")
@_role_option
@_name_option
@click.option("--expires", type=_LIFETIME, default=None, help="How long it holds (12h, 90d) [90d]")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Where cert.pem, key.pem and ca.pem are written [./pyswarm-NAME]",
)
@click.pass_context
def create_certificate(ctx: click.Context, role: str, name: str, expires: float | None, output: Path | None) -> None:
    """`client-cert create`."""
    from pyswarm_common.identity import generate_key, key_to_pem, make_csr  # noqa: PLC0415 - slow, and only here

    directory = output or Path(f"pyswarm-{name}")
    check_empty(directory)
    key = generate_key()
    request = access_pb2.CreateClientCertificateRequest(
        name=name, role=_role(role), lifetime_s=expires or 0.0, csr=make_csr(key)
    )
    access = connect(ctx).access
    made = call(access.CreateClientCertificate, request)
    try:
        write_credentials(directory, key_to_pem(key), made.certificate, made.root_ca_cert)
    except OSError:  # a certificate whose key nobody has, and a name that is taken
        call(access.RemoveClientCertificate, access_pb2.RemoveClientCertificateRequest(certificate=made.credential.id))
        raise
    click.echo(made.credential.id)
    address = made.manager_addresses[0] if made.manager_addresses else "MANAGER:2377"
    click.echo(f"Written to {directory}. Use it so: pyswarm -H tcp://{address} --tls-dir {directory} node ls", err=True)


def check_empty(directory: Path) -> None:
    """Refuse to overwrite another certificate, before one is asked for."""
    for name in (CERT_FILE, KEY_FILE, ROOT_FILE):
        if (directory / name).exists():
            raise click.ClickException(f"{directory / name} exists: choose another directory with -o")


def write_credentials(directory: Path, key: bytes, certificate: bytes, root: bytes) -> None:
    """Readable by their owner alone. All three, or none."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        for name, content in ((KEY_FILE, key), (CERT_FILE, certificate), (ROOT_FILE, root)):
            descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            written.append(directory / name)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(directory)) from error


@click.command(help="List client certificates.")
@format_option
@quiet_option
@click.pass_context
def list_certificates(ctx: click.Context, format_: str, quiet: bool) -> None:
    """`client-cert ls`."""
    request = access_pb2.ListClientCertificatesRequest()
    _show(call(connect(ctx).access.ListClientCertificates, request).credentials, format_, quiet=quiet)


@click.command(help="Remove client certificates: they are refused from then on.")
@click.argument("certificates", metavar="CERTIFICATE...", nargs=-1, required=True)
@click.pass_context
def remove_certificates(ctx: click.Context, certificates: tuple[str, ...]) -> None:
    """`client-cert rm`: by id or name."""
    connection = connect(ctx)

    def act(name: str) -> None:
        request = access_pb2.RemoveClientCertificateRequest(certificate=name)
        click.echo(call(connection.access.RemoveClientCertificate, request).id)

    each(certificates, act)


def _show(found: Any, format_: str, *, quiet: bool) -> None:
    now = time.time()
    rows = [access_view.row(credential, now) for credential in found]
    click.echo(show(rows, access_view.COLUMNS, format_, quiet=quiet), nl=False)

"""The key of a backup that is to be made or read: from a file, standard input, or a prompt."""

from __future__ import annotations

import sys

import click

from pyswarm_cli.secret_lines import read_secret
from pyswarm_common.backup.container import Header
from pyswarm_common.backup.keys import check_passphrase, derive, parse_key
from pyswarm_common.errors import InvalidArgument


def new_passphrase(file: str) -> str:
    """For a backup that is to be made: from the file, or asked for twice."""
    if file:
        passphrase = read_secret(file)
    elif sys.stdin.isatty():
        passphrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    else:
        passphrase = read_secret("-")
    check_passphrase(passphrase)
    return passphrase


def key_for(header: Header, file: str) -> bytes:
    """The key of an existing backup: what its header asks for, from the file or a prompt."""
    what = "Passphrase of the backup" if header.passphrase is not None else f"Backup key {header.key_id}"
    if file:
        secret = read_secret(file)
    elif sys.stdin.isatty():
        secret = click.prompt(what, hide_input=True, err=True)
    else:
        raise InvalidArgument(f"{what.lower()} is needed: give a file that holds it with --key-file (`-`: stdin)")
    return derive(secret, header.passphrase) if header.passphrase is not None else parse_key(secret)

"""Where keys and passphrases come from: a file, standard input, or a prompt. Never the command line or the environment,
which other processes can see.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pyswarm_common.backup.container import Header
from pyswarm_common.backup.keys import check_passphrase, derive, parse_key
from pyswarm_common.errors import InvalidArgument

_MAX_BYTES = 64 * 1024


def new_passphrase(file: str) -> str:
    """For a backup that is to be made: from the file, or asked for twice."""
    if file:
        passphrase = _first_line(file)
    elif sys.stdin.isatty():
        passphrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    else:
        passphrase = _first_line("-")
    check_passphrase(passphrase)
    return passphrase


def key_for(header: Header, file: str) -> bytes:
    """The key of an existing backup: what its header asks for, from the file or a prompt."""
    what = "Passphrase of the backup" if header.passphrase is not None else f"Backup key {header.key_id}"
    if file:
        secret = _first_line(file)
    elif sys.stdin.isatty():
        secret = click.prompt(what, hide_input=True, err=True)
    else:
        raise InvalidArgument(f"{what.lower()} is needed: give a file that holds it with --key-file (`-`: stdin)")
    return derive(secret, header.passphrase) if header.passphrase is not None else parse_key(secret)


def _first_line(file: str) -> str:
    """Without its line end. Bounded, since any file may be named."""
    if file == "-":
        raw = sys.stdin.buffer.readline(_MAX_BYTES)
    else:
        with Path(file).open("rb") as source:
            raw = source.readline(_MAX_BYTES)
    try:
        line = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        line = ""
    if not line:
        where = "standard input" if file == "-" else file
        raise InvalidArgument(f"the first line of {where} holds no key or passphrase")
    return line

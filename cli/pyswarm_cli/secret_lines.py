"""Keys, passphrases and tokens: the first line of a file, or of standard input (`-`).

Never the command line or the environment, which other processes can see. Bounded, since any file may be named.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pyswarm_common.errors import InvalidArgument

_MAX_BYTES = 64 * 1024


def read_secret(file: str) -> str:
    """A key or a passphrase, which may begin or end with spaces."""
    line = _first_line(file)
    if not line:
        raise InvalidArgument(f"the first line of {_name(file)} holds no key or passphrase")
    return line


def read_join_token(file: str) -> str:
    """Whether it is one, the daemon says."""
    return _token(file, "is no join token: `pyswarm join-token -q worker` prints one")


def read_api_token(file: str) -> str:
    """Whether it is one, the manager says."""
    return _token(file, "is no API token: `pyswarm token create` prints one")


def _token(file: str, refusal: str) -> str:
    token = _first_line(file).strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidArgument(f"the first line of {_name(file)} {refusal}")
    return token


def _first_line(file: str) -> str:
    """Without its line end; nothing where it is not text."""
    if file == "-":
        raw = sys.stdin.buffer.readline(_MAX_BYTES)
    else:
        with Path(file).open("rb") as source:
            raw = source.readline(_MAX_BYTES)
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        return ""


def _name(file: str) -> str:
    return "standard input" if file == "-" else file

"""A join token from a file or standard input: what is given as an argument can be seen in the list of processes."""

from __future__ import annotations

import sys
from pathlib import Path

from pyswarm_common.errors import InvalidArgument

_MAX_BYTES = 1024


def read_join_token(path: str) -> str:
    """The first line; `-` is standard input. Whether it is a token the daemon says."""
    if path == "-":
        line = sys.stdin.buffer.readline(_MAX_BYTES)
    else:
        with Path(path).open("rb") as file:
            line = file.readline(_MAX_BYTES)
    token = line.strip()
    if not token.isascii() or not token:
        where = "standard input" if path == "-" else path
        raise InvalidArgument(f"the first line of {where} is no join token: `pyswarm join-token -q worker` prints one")
    return token.decode("ascii")

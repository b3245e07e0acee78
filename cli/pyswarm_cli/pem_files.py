"""Files with certificates and keys, which the user names and the daemon gets over the local socket."""

from __future__ import annotations

from pathlib import Path

from pyswarm_common.errors import InvalidArgument

MAX_PEM_BYTES = 64 * 1024


def read_pem(path: str) -> bytes:
    """A certificate's or key's file, whole; nothing for no path."""
    if not path:
        return b""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_PEM_BYTES:
        raise InvalidArgument(f"{path} is too large for a certificate or a key")
    return content

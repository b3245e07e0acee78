"""Files with certificates and keys, which the user names and the daemon gets over the local socket."""

from __future__ import annotations

from pathlib import Path

from pyswarm_common.errors import InvalidArgument

MAX_PEM_BYTES = 64 * 1024


def read_pem(path: str | None) -> bytes:
    """A certificate's or key's file, whole; nothing for no path. An empty file is refused: nothing means "make one"."""
    if path is None:
        return b""
    if not path:
        raise InvalidArgument("the name of a certificate's or key's file is empty")
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror}") from error
    if not content.strip():
        raise InvalidArgument(f"{path} is empty")
    if len(content) > MAX_PEM_BYTES:
        raise InvalidArgument(f"{path} is too large for a certificate or a key")
    return content

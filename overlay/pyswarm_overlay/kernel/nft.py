"""libnftables through ctypes: documents in, listings out.

A context belongs to the namespace of the thread that made it. Keep the one of the host; a context for a sandbox is made
for one listing and freed again, since each holds 0.7 MB (measured with 1.0.6). The library's calls release the
interpreter lock, and two of them at once are not safe even with contexts of their own: printing JSON uses strtok (seen:
"json.c: set_dtype_json: Assertion `__out' failed", which ends the process). So there is one call at a time.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

from pyswarm_common.errors import Unavailable, Unsupported
from pyswarm_overlay.core.rules import Command

_OUTPUT_JSON = 1 << 4
_LIBRARY = "libnftables.so.1"
_one_at_a_time = threading.Lock()


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        raise Unsupported(f"{_LIBRARY} is missing: install the package libnftables1") from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = (ctypes.c_uint32,)
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = (ctypes.c_void_p,)
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        function = getattr(library, name)
        function.argtypes, function.restype = (ctypes.c_void_p,), ctypes.c_char_p
    library.nft_ctx_output_set_flags.argtypes = (ctypes.c_void_p, ctypes.c_uint)
    library.nft_run_cmd_from_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    return library


class NftRefused(Unavailable):
    """The kernel or the library refused a document."""


class Context:
    """For one namespace."""

    def __init__(self) -> None:
        library = _library()
        with _one_at_a_time:
            self._context = library.nft_ctx_new(0)
        if not self._context:
            raise NftRefused("cannot make an nftables context: out of memory")
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_output_set_flags(self._context, _OUTPUT_JSON)

    def run(self, document: Sequence[Command]) -> dict[str, Any]:
        """Apply the commands as one transaction; returns what they list."""
        library = _library()
        text = json.dumps({"nftables": list(document)}).encode()
        with _one_at_a_time:
            if library.nft_run_cmd_from_buffer(self._context, text) != 0:
                reason = library.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
                raise NftRefused(f"nftables refused the rules: {' '.join(reason.split())[:300]}")
            output = library.nft_ctx_get_output_buffer(self._context).strip()
        return dict(json.loads(output)) if output else {}

    def close(self) -> None:
        with _one_at_a_time:
            _library().nft_ctx_free(self._context)
            self._context = None


def run(document: Sequence[Command]) -> dict[str, Any]:
    """Once, in the namespace of the calling thread."""
    context = Context()
    try:
        return context.run(document)
    finally:
        context.close()

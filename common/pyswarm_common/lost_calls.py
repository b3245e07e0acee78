"""What gRPC says when the other side ended before it answered: words about sockets, which are for nobody. Pure."""

from __future__ import annotations

from typing import Any, Final

_SIGNS: Final = ("Socket closed", "Stream removed", "Connection reset", "Broken pipe", "GOAWAY")


def is_lost(error: Any) -> bool:
    """Whether this RPC error is gRPC's own: nobody says whether the call was carried out."""
    return not error.trailing_metadata() and any(sign in (error.details() or "") for sign in _SIGNS)


def is_unsent(error: Any) -> bool:
    """Whether this RPC error is gRPC's own: there was nobody to send the call to."""
    return not error.trailing_metadata() and "failed to connect" in (error.details() or "")


def told(who: str) -> str:
    """The sentence for it; `who`: "the daemon"."""
    return f"{who} ended before it answered: what was asked for may or may not be done; look, then try again"

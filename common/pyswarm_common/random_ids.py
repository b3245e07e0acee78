"""New ids, by chance. For shells: whoever decides gets its ids as arguments (`ids.IdSource`)."""

from __future__ import annotations

import secrets

from pyswarm_common.ids import id_from_bits

_RAFT_ID_BITS = 63


def new_id() -> str:
    """A random object id."""
    return id_from_bits(secrets.randbits(128))


def new_raft_id() -> int:
    """Positive: zero is "none"."""
    return secrets.randbelow((1 << _RAFT_ID_BITS) - 1) + 1

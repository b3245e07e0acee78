"""Which backend a source belongs to (`session_affinity: client_ip`): decided by rendezvous hashing. Pure.

Every backend has a score for every source; the highest one wins. So the choice follows from the source and from the set
of backends alone: it is the same on every node, after every rewrite of the rules, in whatever order the backends are
listed. When a backend goes, only its own sources move; when one comes, it takes its share and nobody else moves.

One known source (a sandbox is its own): `chosen`. Sources that only the kernel sees: it hashes the address into one of
`BUCKETS` buckets with `SEED` (nftables: `jhash ip saddr mod 1024 seed 0x…`), and `owners` says whose each bucket is.
The number of buckets never follows the number of backends: that would move everybody.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2s, shake_128

BUCKETS = 1024
"""About ten for each of a hundred backends: a load even within a third."""
SEED = 0x70795357
"""Of the kernel's hash: the same on every node, or a source would meet another backend through another node."""
_SCORE_BYTES = 8


def chosen(source: str, backends: Iterable[str]) -> str | None:
    """The backend of one source; None when there is none."""
    return max(set(backends), key=lambda backend: (_score(source, backend), backend), default=None)


def owners(backends: Iterable[str], buckets: int = BUCKETS) -> tuple[str, ...]:
    """The backend of every bucket, by its number; empty when there is none."""
    ordered = sorted(set(backends))
    scores = [_scores(backend, buckets) for backend in ordered]
    return tuple(ordered[column.index(max(column))] for column in zip(*scores, strict=True))


def _score(source: str, backend: str) -> bytes:
    return blake2s(f"{source}\0{backend}".encode(), digest_size=_SCORE_BYTES).digest()


@lru_cache(maxsize=4096)
def _scores(backend: str, buckets: int) -> tuple[int, ...]:
    """For all buckets at once, from one long digest: a hash for each would take a thousand times as long."""
    return struct.unpack(f">{buckets}Q", shake_128(backend.encode()).digest(_SCORE_BYTES * buckets))

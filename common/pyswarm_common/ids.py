"""Identifiers: 25 characters of base 36, as Swarm has them.

Pure: the caller brings the randomness. Whoever decides inside a core gets an `IdSource` as an argument.
"""

from __future__ import annotations

import re
from collections.abc import Callable

ID_LENGTH = 25
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
"""Two digits at a time: a plan may make 10,000 ids."""
_ID_PATTERN = re.compile(rf"[0-9a-z]{{{ID_LENGTH}}}")

IdSource = Callable[[], str]
"""Gives a new id at each call."""


def id_from_bits(bits: int) -> str:
    """The id that 128 random bits make (25 base-36 digits hold 129.2 bits)."""
    assert 0 <= bits < 1 << 128, bits
    digits = []
    for _ in range(ID_LENGTH // 2):
        bits, pair = divmod(bits, 1296)
        digits.append(_PAIRS[pair])
    digits.append(_ALPHABET[bits % 36])
    return "".join(reversed(digits))


def is_id(text: str) -> bool:
    """Whether the text has the form of an id."""
    return _ID_PATTERN.fullmatch(text) is not None

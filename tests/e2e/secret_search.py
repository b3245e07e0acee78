"""Finding secrets in bytes, in every form in which they could have got there.

A form is at least `SHORTEST` bytes long, so wherever it lies in some data it covers one whole aligned word of eight
bytes. The words of the data are looked up in a set of all words that any form could show; only what is hit there is
searched for exactly. So hundreds of forms cost one pass over the data.
"""

from __future__ import annotations

import base64
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

SHORTEST = 15
_WORD = 8
_TOKEN_DIGITS = 25  # of base 36, for 128 bits
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret in all the forms that count as having found it."""

    name: str
    forms: frozenset[bytes]


def of_text(name: str, text: str) -> Secret:
    """A token's secret part, a passphrase: itself, in base 64 and hex, and the number that its digits are."""
    forms = {text.encode(), text.upper().encode(), *_base64(text.encode()), text.encode().hex().encode()}
    if len(text) == _TOKEN_DIGITS:
        number = int(text, 36)
        forms |= {number.to_bytes(17, "big")[1:], str(number).encode(), b"%x" % number}
    return Secret(name, _long_enough(forms))


def of_bytes(name: str, raw: bytes) -> Secret:
    """A symmetric key, or a private scalar."""
    number, base32 = int.from_bytes(raw, "big"), base64.b32encode(raw)[: len(raw) * 8 // 5]
    forms = {raw, raw[::-1], raw.hex().encode(), raw.hex().upper().encode(), raw.hex(":").encode()}
    forms |= {str(number).encode(), _base36(number).encode(), ", ".join(map(str, raw)).encode()}
    forms |= {repr(raw)[2:-1].encode(), base32, base32.lower(), *_base64(raw), *_base64(raw.hex().encode())}
    return Secret(name, _long_enough(forms))


def of_private_key(name: str, pem: bytes) -> Secret:
    """A P-256 key: its PEM, line by line, its DER, and its scalar alone."""
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    scalar = key.private_numbers().private_value.to_bytes(32, "big")
    forms = set(of_bytes(name, scalar).forms)
    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        arguments = (form, serialization.NoEncryption())
        der = key.private_bytes(serialization.Encoding.DER, *arguments)
        text = key.private_bytes(serialization.Encoding.PEM, *arguments)
        # What follows the scalar is the public key, which is no secret: only lines that show some of it count.
        end = der.index(scalar) + len(scalar)
        lines = text.splitlines()[1:-1][: -(-end // 48)]
        forms |= {der[:end], *lines, *(encoded for line in lines for encoded in _base64(line))}
    return Secret(name, _long_enough(forms))


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits


def _base64(raw: bytes) -> Iterator[bytes]:
    """As it looks in the middle of something longer: at each of the three places where it may begin there."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        after = -(len(raw) + before) % 3
        inner = encoded[(before * 4 + 2) // 3 : len(encoded) - (after and after + 1)]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def _long_enough(forms: set[bytes]) -> frozenset[bytes]:
    kept = frozenset(form for form in forms if len(form) >= SHORTEST)
    assert kept, "this is too short to be looked for"
    return kept


class Search:
    """Looks for many secrets at once."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._names: dict[bytes, set[str]] = defaultdict(set)
        self._forms: dict[int, set[bytes]] = defaultdict(set)
        for secret in secrets:
            for form in secret.forms:
                self._names[form].add(secret.name)
        for form in self._names:
            for at in range(len(form) - _WORD + 1):
                self._forms[int.from_bytes(form[at : at + _WORD], sys.byteorder)].add(form)
        self._words = frozenset(self._forms)

    def names(self, data: bytes) -> set[str]:
        """Of the secrets that the data shows."""
        padded = data + bytes(-len(data) % _WORD)
        hits = self._words.intersection(memoryview(padded).cast("Q"))
        suspects = {form for word in hits for form in self._forms[word]}
        return {name for form in suspects if form in data for name in self._names[form]}

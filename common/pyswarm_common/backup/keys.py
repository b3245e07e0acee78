"""Keys of backups: the cluster's backup key as text, and keys that follow from a passphrase.

A backup must open after every machine of its cluster is lost, so its key has to be known outside of the cluster: either
the operator chose a passphrase, or wrote the cluster's backup key down. The text form carries a checksum, so that a
slip of the pen is told from the wrong key. Nothing here is ever logged or shown in an error.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from pyswarm_common.errors import InvalidArgument

KEY_BYTES = 32
SALT_BYTES = 16
MIN_PASSPHRASE = 8
_MAX_PASSPHRASE = 1024
_PREFIX = "SWMBAK-1-"
_CHECK_BYTES = 3  # 35 bytes are 56 base-32 digits without padding
_MAX_LOG2_N, _MAX_R, _MAX_P = 20, 16, 4  # of a file that anybody may have written: 2 GiB of memory at most


class PassphraseParams(msgspec.Struct, frozen=True):
    """How scrypt made the key. The defaults cost 128 MiB and about half a second."""

    salt: bytes
    log2_n: int = 17
    r: int = 8
    p: int = 1


def format_key(key: bytes) -> str:
    """The text an operator keeps."""
    assert len(key) == KEY_BYTES
    return _PREFIX + base64.b32encode(key + _check(key)).decode().lower()


def parse_key(text: str) -> bytes:
    """The key in the text. Raises InvalidArgument that says whether it is mistyped."""
    text = text.strip()
    if not text.startswith(_PREFIX):
        raise InvalidArgument(f"this is not a backup key: it begins with {_PREFIX}, as `pyswarm backup key` shows it")
    try:
        raw = base64.b32decode(text.removeprefix(_PREFIX).upper())
    except (binascii.Error, ValueError):
        raw = b""
    key, check = raw[:KEY_BYTES], raw[KEY_BYTES:]
    if len(raw) != KEY_BYTES + _CHECK_BYTES or check != _check(key):
        raise InvalidArgument("the backup key is mistyped: compare it with what you wrote down")
    return key


def key_id(key: bytes) -> str:
    """Tells keys apart without giving anything of them away."""
    return hashlib.sha256(b"pyswarm backup key id\0" + key).hexdigest()[:12]


def check_passphrase(passphrase: str) -> None:
    """Raises InvalidArgument for one that is too short to protect anything."""
    if not MIN_PASSPHRASE <= len(passphrase) <= _MAX_PASSPHRASE:
        raise InvalidArgument(f"the passphrase must have between {MIN_PASSPHRASE} and {_MAX_PASSPHRASE} characters")


def derive(passphrase: str, params: PassphraseParams) -> bytes:
    """The key that follows from the passphrase. Slow on purpose; the parameters were checked by `check_params`."""
    check_params(params)
    kdf = Scrypt(salt=params.salt, length=KEY_BYTES, n=1 << params.log2_n, r=params.r, p=params.p)
    return kdf.derive(passphrase.encode())


def check_params(params: PassphraseParams) -> None:
    """Refuses what would be no protection, and what would eat the reader's memory."""
    good = (
        len(params.salt) == SALT_BYTES
        and 14 <= params.log2_n <= _MAX_LOG2_N
        and 1 <= params.r <= _MAX_R
        and 1 <= params.p <= _MAX_P
    )
    if not good:
        raise InvalidArgument("the backup's passphrase parameters are out of range: the file is damaged")


def _check(key: bytes) -> bytes:
    return hashlib.sha256(b"pyswarm backup key check\0" + key).digest()[:_CHECK_BYTES]

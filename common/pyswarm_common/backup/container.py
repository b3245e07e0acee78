"""A backup as bytes: a header that everybody can read, sealed pieces, a sealed trailer, and a checksum of it all.

    magic (8) | header length (4) | header (msgpack) | frame ... frame | 0xFFFFFFFF | SHA-256 of everything before (32)
    frame: kind (1) | length (4) | AES-256-GCM of the piece

Each file has a salt, and its cipher's key follows from that and the backup's key, so a frame's number can be its nonce.
Each frame is bound to the header, its number and its kind; the last one says how many there were. So a frame that was
changed, moved, doubled or left out is found, and so is a file that ends early. The checksum finds accidents, also
without the key.

Pure: bytes in, bytes out. What the pieces mean is the business of `pyswarm_manager.backup`. A reader must never act on
a piece before the trailer was seen: `Reader.pieces` is only whole when it ends without raising.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pyswarm_common.backup.keys import KEY_BYTES, PassphraseParams, check_params
from pyswarm_common.documents import Malformed, decode_msgpack
from pyswarm_common.errors import InvalidArgument

FORMAT = 1
SUFFIX = ".pyswarm-backup"
MAX_PIECE_BYTES = 16 << 20
SALT_BYTES = 32
_MAGIC = b"PSWMBKP\n"
_MAX_HEADER_BYTES = 64 << 10
_TAG_BYTES = 16
_DIGEST_BYTES = 32
_LENGTH = struct.Struct(">I")
_FRAME = struct.Struct(">BI")
_END = 0xFF
_PIECE, _SUMMARY, _TRAILER = 1, 2, 3


class Damaged(InvalidArgument):
    """The file is not what was written: it ended early, or something in it changed."""


class WrongKey(InvalidArgument):
    """Nothing in the file opens with this key."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What may be known without the key."""

    format: int = FORMAT
    cluster_id: str
    cluster_name: str = ""
    index: int
    term: int
    created_at: float
    made_by: str = ""
    """Host name of the manager."""
    version: str = ""
    salt: bytes
    key_id: str = ""
    """Which backup key opens it; empty when it is a passphrase."""
    passphrase: PassphraseParams | None = None
    counts: dict[str, int] = {}
    """Objects by kind."""


class KnownManager(msgspec.Struct, frozen=True):
    """One manager at the time of the backup."""

    node_id: str = ""
    hostname: str = ""
    address: str = ""
    raft_id: int = 0


class Summary(msgspec.Struct, frozen=True):
    """The first sealed frame: what a reader shows before anything is done with the rest."""

    managers: tuple[KnownManager, ...] = ()
    services: tuple[str, ...] = ()
    """Names, as many as fit."""


class Trailer(msgspec.Struct, frozen=True):
    """The last sealed frame. Its own number is bound to it like any other's."""

    pieces: int
    plain_bytes: int


class Readable(Protocol):
    """A file opened for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


def write(header: Header, summary: Summary, key: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of the file, part by part."""
    head = _MAGIC + _with_length(msgspec.msgpack.encode(header))
    seal = _Sealer(key, header.salt, head)
    digest = hashlib.sha256()

    def out(part: bytes) -> bytes:
        digest.update(part)
        return part

    yield out(head)
    yield out(seal.frame(_SUMMARY, msgspec.msgpack.encode(summary)))
    count = plain_bytes = 0
    for piece in pieces:
        count, plain_bytes = count + 1, plain_bytes + len(piece)
        yield out(seal.frame(_PIECE, piece))
    yield out(seal.frame(_TRAILER, msgspec.msgpack.encode(Trailer(count, plain_bytes))))
    yield out(_FRAME.pack(_END, 0))
    yield digest.digest()


class Reader:
    """Reads one file once, from front to end: the header at once, then either `check`, or `summary` and `pieces`."""

    def __init__(self, source: Readable) -> None:
        self._source = _Digesting(source)
        head = self._source.exactly(len(_MAGIC) + _LENGTH.size, "it is no backup of pyswarm")
        if not head.startswith(_MAGIC):
            raise Damaged("this is no backup of pyswarm")
        (length,) = _LENGTH.unpack(head[len(_MAGIC) :])
        if length > _MAX_HEADER_BYTES:
            raise Damaged("the backup is damaged: its header is too long")
        encoded = self._source.exactly(length)
        self.header = _decode_header(encoded)
        self._head = head + encoded

    def check(self) -> int:
        """Without the key: that the file is whole, by its checksum. Returns its size in bytes."""
        for _ in self._frames():
            pass
        return self._source.count

    def summary(self, key: bytes) -> Summary:
        """The first frame. Raises WrongKey. Nothing is known of the rest yet."""
        self._opener = _Sealer(key, self.header.salt, self._head)
        self._sealed = self._frames()
        kind, sealed = next(self._sealed, (_END, b""))
        if kind != _SUMMARY:
            raise Damaged("the backup is damaged: it does not begin as one")
        try:
            return _decode(self._opener.open(kind, sealed), Summary)
        except InvalidTag:
            raise WrongKey(_wrong_key(self.header)) from None

    def pieces(self) -> Iterator[bytes]:
        """After `summary`: the pieces in order. Only when it ends without raising was the file whole."""
        count = plain_bytes = 0
        for kind, sealed in self._sealed:
            try:
                plain = self._opener.open(kind, sealed)
            except InvalidTag:
                raise Damaged(_changed(count)) from None
            if kind == _TRAILER:
                self._check_trailer(_decode(plain, Trailer), Trailer(count, plain_bytes))
                return
            if kind != _PIECE:
                raise Damaged(_changed(count))
            count, plain_bytes = count + 1, plain_bytes + len(plain)
            yield plain
        raise Damaged("the backup is damaged: it ends without its trailer")

    @property
    def size_bytes(self) -> int:
        """Read so far."""
        return self._source.count

    def _check_trailer(self, said: Trailer, found: Trailer) -> None:
        if said != found:
            raise Damaged("the backup is damaged: pieces of it are missing")
        if next(self._sealed, None) is not None:
            raise Damaged("the backup is damaged: something follows its trailer")

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        """Kind and sealed content of every frame; at the end the checksum is compared."""
        while True:
            kind, length = _FRAME.unpack(self._source.exactly(_FRAME.size))
            if kind == _END:
                break
            if not _TAG_BYTES <= length <= MAX_PIECE_BYTES + _TAG_BYTES:
                raise Damaged("the backup is damaged: the length of a piece is impossible")
            yield kind, self._source.exactly(length)
        expected = self._source.digest()
        if self._source.exactly(_DIGEST_BYTES) != expected:
            raise Damaged("the backup is damaged: its checksum is wrong")
        if self._source.more():
            raise Damaged("the backup is damaged: something follows its end")


class _Digesting:
    """Reads exactly what is asked for, and sums it up."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._digest = hashlib.sha256()
        self.count = 0

    def exactly(self, size: int, otherwise: str = "it ends too early") -> bytes:
        parts, missing = [], size
        while missing:
            part = self._source.read(missing)
            if not part:
                raise Damaged(f"the backup is damaged: {otherwise}")
            parts.append(part)
            missing -= len(part)
        data = b"".join(parts)
        self._digest.update(data)
        self.count += size
        return data

    def digest(self) -> bytes:
        return self._digest.digest()

    def more(self) -> bool:
        return bool(self._source.read(1))


class _Sealer:
    """Frames of one file, numbered in the order they are sealed or opened."""

    def __init__(self, key: bytes, salt: bytes, head: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise InvalidArgument("a backup's key has 32 bytes")
        self._cipher = AESGCM(HKDF(SHA256(), KEY_BYTES, salt, b"pyswarm backup 1").derive(key))
        self._head = hashlib.sha256(head).digest()
        self._number = 0

    def frame(self, kind: int, plain: bytes) -> bytes:
        if len(plain) > MAX_PIECE_BYTES:
            raise ValueError(f"a piece of {len(plain)} bytes is larger than a reader takes")
        sealed = self._cipher.encrypt(self._nonce(), plain, self._place(kind))
        return _FRAME.pack(kind, len(sealed)) + sealed

    def open(self, kind: int, sealed: bytes) -> bytes:
        """Raises InvalidTag."""
        nonce = self._nonce()
        return self._cipher.decrypt(nonce, sealed, self._place(kind))

    def _nonce(self) -> bytes:
        self._number += 1
        return self._number.to_bytes(12, "big")

    def _place(self, kind: int) -> bytes:
        return self._head + self._number.to_bytes(8, "big") + bytes([kind])


_T = TypeVar("_T", Summary, Trailer)


def _decode(plain: bytes, wanted: type[_T]) -> _T:
    try:
        return decode_msgpack(plain, wanted)
    except Malformed as error:  # sealed with the right key, so a newer version wrote it
        raise Damaged("the backup cannot be read by this version of pyswarm: use a newer one") from error


class _AnyFormat(msgspec.Struct):
    format: int


def _decode_header(encoded: bytes) -> Header:
    try:
        written = decode_msgpack(encoded, _AnyFormat).format
        if written != FORMAT:
            raise InvalidArgument(
                f"the backup has format {written} and this pyswarm reads {FORMAT}: use the version that made it"
            )
        header = decode_msgpack(encoded, Header)
    except Malformed as error:
        raise Damaged("the backup is damaged: its header cannot be read") from error
    if header.passphrase is not None:
        check_params(header.passphrase)
    if len(header.salt) != SALT_BYTES or not math.isfinite(header.created_at) or header.index < 0:
        raise Damaged("the backup is damaged: its header cannot be read")
    return header


def _wrong_key(header: Header) -> str:
    if header.passphrase is not None:
        return "the passphrase is wrong, or the backup is damaged"
    return f"this is not the key of the backup, or it is damaged: it was sealed with the backup key {header.key_id}"


def _changed(number: int) -> str:
    return f"the backup is damaged: piece {number + 1} was changed or moved"


def _with_length(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data

"""Reading untrusted tar streams forward, decompressed, hashed and bounded.

`ForwardReader` looks like a file to `tarfile`, but can only go forward, never gives more than `limit` bytes, and never
reads more at once than a header may sensibly hold: so neither a compression bomb nor a header that claims gigabytes can
fill the memory or the disk.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from typing import Protocol

import zstandard

from pyswarm_common.errors import Exhausted, InvalidArgument

CHUNK = 1024 * 1024
MAX_READ = 4 * CHUNK
ZSTD_MAX_WINDOW = 1 << 27
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_REFUSED_MAGICS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Joined:
    """The bytes that were read to look at them, then the rest."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._rest.read(size)


class _Gunzip:
    """All members of a gzip stream, in bounded steps."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._inflater = zlib.decompressobj(wbits=31)
        self._pending = b""
        self._is_started = False

    def read(self, size: int, /) -> bytes:
        while True:
            if self._inflater.eof:
                self._pending = self._inflater.unused_data.lstrip(b"\0") or self._pending
                self._inflater = zlib.decompressobj(wbits=31)
                self._is_started = False
            if not self._pending:
                self._pending = self._source.read(CHUNK)
            if not self._pending:
                if self._is_started:
                    raise InvalidArgument("the gzip stream ends early: the archive is cut off")
                return b""
            data = self._inflate(size)
            if data:
                return data

    def _inflate(self, size: int) -> bytes:
        try:
            data = self._inflater.decompress(self._pending, size)
        except zlib.error as error:
            raise InvalidArgument(f"the gzip stream is damaged: {error}") from error
        self._is_started = True
        self._pending = self._inflater.unconsumed_tail
        return data


class _Unzstd:
    def __init__(self, source: Readable) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_MAX_WINDOW)
        self._reader = decompressor.stream_reader(source, read_across_frames=True)  # type: ignore[arg-type]

    def read(self, size: int, /) -> bytes:
        try:
            return self._reader.read(size)
        except zstandard.ZstdError as error:
            raise InvalidArgument(f"the zstd stream is damaged: {error}") from error


def decompressed(source: Readable) -> Readable:
    """Looks at the first bytes and undoes gzip or zstd."""
    head = b""
    while len(head) < 6 and (more := source.read(6 - len(head))):
        head += more
    joined = _Joined(head, source)
    if head.startswith(GZIP_MAGIC):
        return _Gunzip(joined)
    if head.startswith(ZSTD_MAGIC):
        return _Unzstd(joined)
    for magic, name in _REFUSED_MAGICS.items():
        if head.startswith(magic):
            raise InvalidArgument(f"the archive is compressed with {name}: use gzip, zstd or none")
    return joined


class ForwardReader:
    """A decompressed stream that `tarfile` can walk; keeps the digest of all that went by."""

    def __init__(self, source: Readable, limit: int) -> None:
        self._source = decompressed(source)
        self._limit = limit
        self._position = 0
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > MAX_READ:
            raise Exhausted(f"the archive has a header of {size} bytes: more than the {MAX_READ} that are read at once")
        parts = []
        while size > 0 and (data := self._source.read(size)):
            parts.append(data)
            size -= len(data)
            self._count(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def seek(self, position: int, whence: int = 0, /) -> int:
        if whence != 0 or position < self._position:
            raise InvalidArgument("the archive cannot be read in one pass")
        while self._position < position:
            if not self.read(min(CHUNK, position - self._position)):
                break
        return self._position

    def tell(self) -> int:
        return self._position

    def finish(self) -> str:
        """Reads what is left (padding after the end mark) and gives the digest of the whole stream."""
        while self.read(CHUNK):
            pass
        return "sha256:" + self._hash.hexdigest()

    def _count(self, data: bytes) -> None:
        self._position += len(data)
        if self._position > self._limit:
            raise Exhausted(f"the archive unpacks to more than {self._limit} bytes, which is the limit set here")
        self._hash.update(data)


def members(reader: ForwardReader, max_entries: int) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Every entry in order. Nothing is kept of those gone by, so memory does not grow with the archive."""
    count = 0
    try:
        with tarfile.open(fileobj=reader, mode="r:", errorlevel=2) as archive:  # type: ignore[call-overload]
            while (member := archive.next()) is not None:
                count += 1
                if count > max_entries:
                    raise Exhausted(f"the archive has more than {max_entries} entries, which is the limit set here")
                yield archive, member
                archive.members.clear()
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise InvalidArgument(f"the archive is not a readable tar file: {error}") from error


def copy_member(archive: tarfile.TarFile, member: tarfile.TarInfo, reader: ForwardReader) -> Iterator[bytes]:
    """A regular member's bytes in chunks; straight from the stream but for sparse files."""
    if member.issparse():
        source = archive.extractfile(member)
        assert source is not None
        while data := source.read(CHUNK):
            yield data
        return
    reader.seek(member.offset_data)
    left = member.size
    while left > 0:
        data = reader.read(min(CHUNK, left))
        if not data:
            raise InvalidArgument("the archive is cut off in the middle of a file")
        left -= len(data)
        yield data

"""Files of this machine as tar streams, and tar streams as files of this machine, by docker's rules for `cp`.

What comes from a container may be made to do harm: no entry leaves the place it is copied to, whatever its name and
whatever links came before it; owners, set-user-id bits and devices are not taken over. What was copied before a failure
stays.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Self

from pyswarm_common.errors import InvalidArgument, NotFound

CHUNK = 128 * 1024
MAX_HEADER = 1 << 20
_PERMISSIONS = 0o777
_LAST_TIME = 2.0**33
_LONG_HEADERS = frozenset(
    (
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    )
)


# ---- from here


def packed(source: str, follow: bool) -> Iterator[bytes]:
    """The file or directory as a tar stream; `directory/.` is what is in it. `follow`: not a link, but its target."""
    path = Path(source)
    if not os.path.lexists(path):
        raise NotFound(f"lstat {source}: no such file or directory")
    content_only = source.endswith("/.") or source == "."
    if (source.endswith("/") or content_only) and not path.is_dir():
        raise InvalidArgument(f"{source} is not a directory")
    is_link_followed = follow or source.endswith("/") or content_only
    top = path.resolve() if is_link_followed else path
    name = "." if content_only else Path(os.path.normpath(path.absolute())).name
    for entry in _walk(top):
        yield from _packed_entry(entry, str(Path(name) / entry.relative_to(top)))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _walk(top: Path) -> Iterator[Path]:
    yield top
    if top.is_dir() and not top.is_symlink():
        for entry in sorted(top.iterdir()):
            yield from _walk(entry)


def _packed_entry(entry: Path, name: str) -> Iterator[bytes]:
    """Header and content, never more of it in memory than a chunk."""
    if entry.is_socket():
        return
    with tarfile.open(fileobj=io.BytesIO(), mode="w") as maker:
        member = maker.gettarinfo(entry, name)
    member.uname = member.gname = ""
    if not member.isreg():
        yield member.tobuf(tarfile.PAX_FORMAT)
        return
    with entry.open("rb") as file:
        member.size = left = os.fstat(file.fileno()).st_size
        yield member.tobuf(tarfile.PAX_FORMAT)
        while left > 0:
            data = file.read(min(CHUNK, left))
            if not data:
                raise InvalidArgument(f"{entry} became shorter while it was copied")
            left -= len(data)
            yield data
    yield bytes(-member.size % tarfile.BLOCKSIZE)


# ---- to here


def unpack(chunks: Iterable[bytes], destination: str) -> None:
    """Puts what the stream brings into `destination` if that is a directory, else under that name."""
    path = Path(os.path.realpath(destination))
    _refuse_specials(path, destination)
    if path.is_dir():
        place: Callable[[str], Path] = lambda name: path / name  # noqa: E731
        root = path
    elif destination.endswith("/"):
        raise NotFound(f"no such directory: {destination}")
    elif not path.parent.is_dir():
        raise NotFound(f"no such directory: {path.parent}")
    else:
        place = lambda name: path.joinpath(*name.split("/")[1:])  # noqa: E731
        root = path.parent
    reader: Any = _Chunks(chunks)
    try:
        with tarfile.open(fileobj=reader, mode="r|", bufsize=CHUNK, tarinfo=_Header) as archive:
            while (member := archive.next()) is not None:
                _put(archive, member, place(_clean(member.name)), place, root)
                archive.members.clear()  # type: ignore[attr-defined]  # or memory grows with the stream
    except (tarfile.TarError, RecursionError, UnicodeError) as error:
        raise InvalidArgument(f"the copy came incomplete or damaged: {error}") from error


def _clean(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise InvalidArgument(f"refused: the container sent a file whose name leads outside: {name!r}")
    return "/".join(parts)


def _put(
    archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, place: Callable[[str], Path], root: Path
) -> None:
    _refuse_links(target.parent, root)
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        if target.is_symlink() or not target.is_dir():
            _make_directory(target)
    elif member.issym():
        _clear(target)
        target.symlink_to(member.linkname)
        return
    elif member.islnk():
        source = place(_clean(member.linkname))
        _refuse_links(source.parent, root)
        _clear(target)
        os.link(source, target, follow_symlinks=False)
        return
    elif member.issparse():
        raise InvalidArgument(f"refused: the container sent a file with holes, which could fill this disk: {target}")
    elif member.isreg():
        _write_file(archive, member, target)
    elif "/" not in _clean(member.name):
        raise InvalidArgument(f"{member.name} is no file, directory or link: it stays in the container")
    else:
        return  # so do devices and pipes in a directory
    target.chmod(member.mode & _PERMISSIONS | (stat.S_IRWXU if member.isdir() else 0))
    mtime = min(_LAST_TIME, max(0.0, member.mtime))  # in this order what is no number becomes 0
    os.utime(target, (mtime, mtime), follow_symlinks=False)


def _make_directory(target: Path) -> None:
    """Never in place of something else: what was there is not the copy's to throw away."""
    try:
        target.mkdir()
    except FileExistsError:
        raise InvalidArgument(f"cannot overwrite non-directory {target} with directory") from None


def _refuse_specials(path: Path, told: str) -> None:
    """A copy takes the place of a file; of a device (`/dev/null`), a pipe or a socket it must not."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # it is not there yet, or making it will tell why not
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "an irregular file"
        raise InvalidArgument(f'invalid output path: "{told}" must be a directory or a regular file: got {kind}')


def _write_file(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    _clear(target)
    source: IO[bytes] | None = archive.extractfile(member)
    assert source is not None
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        while data := source.read(CHUNK):
            file.write(data)


def _refuse_links(directory: Path, root: Path) -> None:
    """No link below the root may be on the way: it may have come with the same stream."""
    while directory not in (root, directory.parent):
        if directory.is_symlink():
            raise InvalidArgument(f"refused: a link is on the way to what the container sent: {directory}")
        directory = directory.parent


def _clear(target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        raise InvalidArgument(f"cannot overwrite directory {target} with non-directory")
    target.unlink(missing_ok=True)


class _Header(tarfile.TarInfo):
    """Of an entry. What comes before an entry's own header is read whole, so it must be small."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _LONG_HEADERS and header.size > MAX_HEADER:
            raise InvalidArgument(f"refused: the container sent a header of {header.size} bytes")
        return header


class _Chunks:
    """A stream of chunks as a file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._left = b""

    def read(self, size: int) -> bytes:
        while len(self._left) < size and (more := next(self._chunks, b"")):
            self._left += more
        data, self._left = self._left[:size], self._left[size:]
        return data

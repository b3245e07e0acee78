"""Files out of and into a container: `python -m pyswarm_runtime.container_files read|write ROOT PATH`.

Runs as a process of its own with its root changed to the container's, so that every link and every `..` means what it
means there, whoever changes it meanwhile. `read` writes a tar stream to standard output, `write` takes one from
standard input; how it went is one JSON line on standard error (`Outcome`). From the change of root on it must run no
code that is not loaded yet: the file system is the container's, and so is every library in it (CVE-2019-14271).
Who acts next: `access.py`.
"""

from __future__ import annotations

import os
import stat
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from pyswarm_common.errors import InvalidArgument, PyswarmError
from pyswarm_runtime.tarstream import ForwardReader, copy_member, members

MAX_BYTES = 1 << 40
MAX_ENTRIES = 2_000_000
CHUNK = 1024 * 1024


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    error: str = ""
    is_missing: bool = False


# ---- out of the container


def read_out(path: str, target: BinaryIO) -> None:
    """The file or directory at `path`; its entries begin with its base name, or with `.` for `directory/.`."""
    source = _normal(path)
    if path.endswith(("/", "/.")):
        source = source.resolve()
        if not source.is_dir():
            raise NotADirectoryError(20, "it is not a directory", path)
    source.lstat()
    name = "." if path.endswith("/.") else _normal(path).name or "."
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as archive:
        archive.add(source, name)


# ---- into the container


def write_in(path: str, source: BinaryIO) -> None:
    """Unpacks one file or directory, whose entries share their first component, as `cp` would put it at `path`."""
    writer = Writer(_place(path))
    reader = ForwardReader(source, MAX_BYTES)
    for archive, member in members(reader, MAX_ENTRIES):
        writer.put(archive, member, reader)
    writer.finish()
    reader.finish()


def _place(path: str) -> Callable[[str], Path]:
    """Where an entry goes: below an existing directory, else in place of the archive's first component."""
    wanted = _normal(path)
    if wanted.is_dir():
        return lambda name: wanted / name
    if path.endswith("/"):
        raise NotADirectoryError(20, "no such directory", path)
    if not wanted.parent.is_dir():
        raise FileNotFoundError(2, "no such directory", str(wanted.parent))
    return lambda name: wanted.joinpath(*name.split("/")[1:])


class Writer:
    """Puts entries where `place` says."""

    def __init__(self, place: Callable[[str], Path]) -> None:
        self._place = place
        self._times: list[tuple[Path, float]] = []

    def put(self, archive: tarfile.TarFile, member: tarfile.TarInfo, reader: ForwardReader) -> None:
        target = self._place(_clean(member.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        if member.islnk():
            _clear(target)
            os.link(self._place(_clean(member.linkname)), target, follow_symlinks=False)
            return  # it shares its owner, mode and times
        self._make(archive, member, reader, target)
        os.chown(target, member.uid, member.gid, follow_symlinks=False)
        if member.issym():
            return
        target.chmod(member.mode & 0o7777)
        if member.isdir():
            self._times.append((target, member.mtime))
        else:
            _set_time(target, member.mtime)

    def finish(self) -> None:
        """Last, since making files in a directory changes its time."""
        for target, mtime in reversed(self._times):
            _set_time(target, mtime)

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, reader: ForwardReader, target: Path) -> None:
        if member.isdir():
            if not target.is_dir():
                _make_directory(target)
        elif member.isreg():
            _clear(target)
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb", buffering=0) as file:
                for chunk in copy_member(archive, member, reader):
                    file.write(chunk)
        elif member.issym():
            _clear(target)
            target.symlink_to(member.linkname)
        else:
            raise InvalidArgument(f"the archive has '{member.name}', which is no file, directory or link")


def _normal(path: str) -> Path:
    return Path(os.path.normpath("/" + path.lstrip("/")))


def _clean(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise InvalidArgument(f"the archive has an entry that leads outside it: '{name}'")
    return "/".join(parts)


def _clear(target: Path) -> None:
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise InvalidArgument(f"cannot overwrite directory {target} with non-directory")
    target.unlink()


def _make_directory(target: Path) -> None:
    try:
        target.mkdir()
    except FileExistsError:
        raise InvalidArgument(f"cannot overwrite non-directory {target} with directory") from None


def _set_time(target: Path, mtime: float) -> None:
    seconds = min(2.0**33, max(0.0, mtime))  # in this order what is no number becomes 0
    os.utime(target, (seconds, seconds), follow_symlinks=False)


# ---- the process


def _enter(root: str) -> None:
    os.umask(0)
    os.chdir(root)
    os.chroot(".")
    os.chdir("/")
    sys.meta_path.clear()
    sys.path.clear()
    # tarfile would look up the names of owners, for which the C library loads modules from below this root.
    tarfile.pwd = tarfile.grp = None  # type: ignore[attr-defined]


def main(arguments: list[str]) -> int:
    action, root, path = arguments
    # What a failure needs must be loaded before the root changes.
    _load_codecs()
    _enter(root)
    outcome = Outcome()
    try:
        if action == "read":
            read_out(path, sys.stdout.buffer)
        else:
            write_in(path, sys.stdin.buffer)
    except (FileNotFoundError, NotADirectoryError) as error:
        outcome = Outcome(error=error.strerror or str(error), is_missing=True)
    except (PyswarmError, OSError, tarfile.TarError, MemoryError, RecursionError) as error:
        outcome = Outcome(error=str(error) or type(error).__name__)
    sys.stderr.buffer.write(msgspec.json.encode(outcome) + b"\n")
    return 1 if outcome.error else 0


def _load_codecs() -> None:
    probe: Any = tarfile.TarInfo("é")
    probe.tobuf(tarfile.PAX_FORMAT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

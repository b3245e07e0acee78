"""A container's output, as conmon wrote it: parsed, joined into lines, from the end, since a time, and followed.

One log line of conmon's is `<RFC 3339 time> stdout|stderr P|F <data>`; P marks a part without its line's end. Rotated
files stand beside the current one as `.1` (newest), `.2`…. Reading never blocks the writer, and a reader that is slow
merely reads later; what was rotated away meanwhile is gone for it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import cast

from pyswarm_runtime.types import LogRecord, LogStream

CHUNK = 64 * 1024
MAX_LINE = 256 * 1024  # a longer line is handed on in pieces
_SECONDS_LENGTH = len("2026-01-01T00:00:00")


class LogParser:
    """Bytes of log files in, records out. Pure; keeps what is not yet a whole line."""

    def __init__(self) -> None:
        self._rest = b""
        self._parts: dict[LogStream, list[bytes]] = {"stdout": [], "stderr": []}
        self._started: dict[LogStream, float] = {"stdout": 0.0, "stderr": 0.0}
        self._second = (b"", 0.0)

    def feed(self, data: bytes) -> Iterator[LogRecord]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            self._rest = b""  # conmon writes no such line: damage
        for line in lines:
            yield from self._line(line)

    def finish(self) -> Iterator[LogRecord]:
        """What the process wrote last, without a line's end."""
        self._rest = b""
        for stream, parts in self._parts.items():
            if parts:
                yield LogRecord(self._started[stream], stream, b"".join(parts))
                parts.clear()

    def _line(self, line: bytes) -> Iterator[LogRecord]:
        fields = line.split(b" ", 3)
        if len(fields) != 4 or fields[1] not in (b"stdout", b"stderr"):
            return  # damaged by a crash in the middle of a write
        stream = cast(LogStream, fields[1].decode())
        timestamp = self._timestamp(fields[0])
        parts = self._parts[stream]
        if not parts:
            self._started[stream] = timestamp
        is_whole = fields[2] == b"F"
        parts.append(fields[3] + b"\n" if is_whole else fields[3])
        if is_whole or sum(map(len, parts)) > MAX_LINE:
            yield LogRecord(self._started[stream], stream, b"".join(parts))
            parts.clear()

    def _timestamp(self, text: bytes) -> float:
        """Most lines share their second with the one before, so that is parsed once."""
        second, fraction = text[:_SECONDS_LENGTH], text[_SECONDS_LENGTH:]
        zone = fraction[-6:] if fraction[-6:-5] in (b"+", b"-") else b"+00:00"
        key = second + zone
        try:
            if key != self._second[0]:
                self._second = (key, datetime.fromisoformat(key.decode()).timestamp())
            digits = fraction.lstrip(b".").removesuffix(b"Z").split(b"+")[0].split(b"-")[0]
            return self._second[1] + (int(digits) / 10 ** len(digits) if digits else 0.0)
        except ValueError:
            return 0.0


def log_files(path: Path) -> list[Path]:
    """From the oldest to the current one."""
    rotated = []
    number = 1
    while (file := rotated_name(path, number)).exists():
        rotated.append(file)
        number += 1
    return [*reversed(rotated), path]


def rotated_name(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def rotate(path: Path, keep: int) -> None:
    """Shifts the files by one; the writer must then be told to open its log anew."""
    rotated_name(path, max(1, keep - 1)).unlink(missing_ok=True)
    for number in range(keep - 2, 0, -1):
        older = rotated_name(path, number)
        if older.exists():
            older.rename(rotated_name(path, number + 1))
    path.rename(rotated_name(path, 1))


def tail_start(files: list[Path], lines: int) -> tuple[list[Path], int]:
    """The files to read for the last `lines` whole lines, and where in the first of them to begin."""
    if lines <= 0:
        return files[-1:], files[-1].stat().st_size if files[-1].exists() else 0
    for index in range(len(files) - 1, -1, -1):
        try:
            with files[index].open("rb", buffering=0) as file:
                offset, found = _offset_from_end(file.fileno(), lines)
        except FileNotFoundError:
            continue
        lines -= found
        if lines <= 0:
            return files[index:], offset
    return files, 0


def _offset_from_end(fd: int, lines: int) -> tuple[int, int]:
    """Goes back block by block until that many line ends are found; a line begins after another's F line."""
    position = os.fstat(fd).st_size
    end, found = position, _is_unfinished(fd, position)
    tail = b""
    while position > 0:
        step = min(CHUNK, position)
        position -= step
        tail = os.pread(fd, step, position) + tail
        pieces = tail.split(b"\n")
        # The first piece may have begun in the block before.
        tail = pieces[0]
        for piece in reversed(pieces[1:]):
            end -= len(piece)
            if _is_line_end(piece):
                found += 1
                if found > lines:
                    return end + len(piece) + 1, lines
            end -= 1
    return (0, found + _is_line_end(tail)) if found + _is_line_end(tail) <= lines else (len(tail) + 1, lines)


def _is_unfinished(fd: int, size: int) -> int:
    """1 where the file ends with a part of a line: that will be a record of its own."""
    step = min(CHUNK, size)
    lines = os.pread(fd, step, size - step).split(b"\n")
    return int(len(lines) > 1 and not _is_line_end(lines[-2]))


def _is_line_end(line: bytes) -> bool:
    fields = line.split(b" ", 3)
    return len(fields) == 4 and fields[2] == b"F"


class LogFollower:
    """Reads on from file to file as they are rotated. Blocking; one thread at a time."""

    def __init__(self, files: list[Path], offset: int) -> None:
        self._files = files
        self._current = files[-1]
        self._offset = offset
        self._fd = -1

    def read(self) -> bytes:
        """The next bytes, or none where there are none yet."""
        while True:
            if self._fd < 0 and not self._open_next():
                return b""
            if data := os.read(self._fd, CHUNK):
                return data
            if not self._files and not self._is_replaced():
                return b""
            # The old file may have grown between the last read and its replacement.
            if data := os.read(self._fd, CHUNK):
                return data
            self.close()
            self._files = self._files or [self._current]

    def _open_next(self) -> bool:
        while self._files:
            try:
                self._fd = os.open(self._files[0], os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if len(self._files) == 1:
                    return False  # not begun yet
                self._files.pop(0)
                self._offset = 0
                continue
            os.lseek(self._fd, self._offset, os.SEEK_SET)
            self._files.pop(0)
            self._offset = 0
            return True
        return False

    def _is_replaced(self) -> bool:
        try:
            return self._current.stat().st_ino != os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return False  # between the two steps of a rotation

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


async def read_logs(
    path: Path,
    run: Callable[[Callable[[], bytes]], Awaitable[bytes]],
    *,
    tail: int | None,
    since: float | None,
    wait_more: Callable[[], Awaitable[bool]] | None,
) -> AsyncIterator[LogRecord]:
    """`wait_more` returns when there may be more; False says that the writer has ended. None: do not follow."""
    files, offset = (log_files(path), 0) if tail is None else tail_start(log_files(path), tail)
    follower, parser = LogFollower(files, offset), LogParser()
    is_ending = wait_more is None
    try:
        while True:
            if data := await run(follower.read):
                for record in parser.feed(data):
                    if since is None or record.timestamp >= since:
                        yield record
            elif is_ending:
                break
            elif wait_more is not None and not await wait_more():
                is_ending = True  # one more look: it may have written until the end
        for record in parser.finish():
            if since is None or record.timestamp >= since:
                yield record
    finally:
        follower.close()

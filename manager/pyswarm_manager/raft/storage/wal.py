"""Tells a torn write from damage in the write-ahead log that a crash left, before SQLite opens it.

SQLite ends recovery at the first frame whose checksum is wrong, whatever the reason. For the last transaction of a
power cut that is right: it was never promised. For a frame that was synced and changed later it is not: everything
after it would be forgotten without a word, votes included. So the frames are looked at here first (their format:
https://sqlite.org/fileformat2.html#walformat). The first wrong frame is damage, and not the end of a torn write, if

- one flipped bit explains it. The checksum is linear, so every place can be tried; a torn write, which leaves old
  sectors, looks like that with a probability of about one in 10^14;
- or a whole transaction follows the one it is in. One begins only when the one before was synced.

What remains undetected is larger damage (more than one bit) in the very last transaction before a crash: it cannot be
told from a write that was cut. Reads only; the storage refuses to open what is damaged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC = 0x377F0682
_HEADER = struct.Struct(">8I")  # magic, version, page size, sequence, two salts, two checksums
_FRAME = struct.Struct(">6I")  # page number, size of the database if it commits, two salts, two checksums
_MASK = 0xFFFFFFFF
_MIN_PAGE, _MAX_PAGE = 512, 65536

Sums = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Frame:
    """One page that was written, as it is in the file."""

    commits: bool
    salts: Sums
    stored: Sums
    words: tuple[int, ...]
    """What the checksum covers."""

    def follows(self, before: Sums) -> bool:
        return checksum(self.words, before) == self.stored


@dataclass(frozen=True, slots=True)
class _Wal:
    """The file, and how it is to be read."""

    content: memoryview
    order: str  # of the words that are summed
    page_bytes: int

    @property
    def count(self) -> int:
        return (len(self.content) - _HEADER.size) // (_FRAME.size + self.page_bytes)

    def frame(self, number: int) -> _Frame:
        """The frame of that number, from zero."""
        at = _HEADER.size + number * (_FRAME.size + self.page_bytes)
        _, size, *rest = _FRAME.unpack_from(self.content, at)
        words = struct.unpack_from(f"{self.order}2I", self.content, at)
        page = struct.unpack_from(f"{self.order}{self.page_bytes // 4}I", self.content, at + _FRAME.size)
        return _Frame(size != 0, (rest[0], rest[1]), (rest[2], rest[3]), words + page)


def checksum(words: tuple[int, ...], before: Sums) -> Sums:
    """SQLite's checksum of an even number of words, going on from that of what comes before."""
    first, second = before
    pairs = iter(words)
    for even, odd in zip(pairs, pairs, strict=True):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return first, second


def find_damage(content: bytes | memoryview) -> str | None:
    """What is wrong with a write-ahead log; None if it is whole up to a torn end."""
    view = memoryview(content)
    if len(view) < _HEADER.size:
        return None
    magic, _, page_bytes, _, salt_1, salt_2, *stored = _HEADER.unpack_from(view)
    order = ">" if magic & 1 else "<"
    words = struct.unpack_from(f"{order}6I", view)
    is_whole = magic & ~1 == _MAGIC and _is_page_size(page_bytes) and checksum(words, (0, 0)) == tuple(stored)
    if not is_whole:
        return _damaged_header(view)
    return _damaged_frame(_Wal(view, order, page_bytes), (salt_1, salt_2), (stored[0], stored[1]))


def _is_page_size(size: int) -> bool:
    return _MIN_PAGE <= size <= _MAX_PAGE and size & (size - 1) == 0


def _damaged_header(view: memoryview) -> str | None:
    """The header is synced before the first frame is written. So if it is wrong there are no frames, or it is damaged,
    and then the first frame still fits to it in one of its readings."""
    stored = _HEADER.unpack_from(view)[6:]
    for order in "<>":
        computed = checksum(struct.unpack_from(f"{order}6I", view), (0, 0))
        for page_bytes in (size for size in (512 << shift for shift in range(8)) if len(view) >= 56 + size):
            frame = _Wal(view, order, page_bytes).frame(0)
            is_written = frame.salts != (0, 0)
            if is_written and (frame.follows((stored[0], stored[1])) or frame.follows(computed)):
                return "the header of its write-ahead log was changed"
    return None


def _damaged_frame(wal: _Wal, salts: Sums, before: Sums) -> str | None:
    for number in range(wal.count):
        frame = wal.frame(number)
        if frame.salts != salts or not frame.follows(before):
            if _is_one_bit_off(frame, salts, before):
                return f"a bit of frame {number + 1} of its write-ahead log was flipped"
            if _is_followed(wal, number, salts):
                return f"frame {number + 1} of its write-ahead log was changed, and later ones are whole"
            return None
        before = frame.stored
    return None


def _is_one_bit_off(frame: _Frame, salts: Sums, before: Sums) -> bool:
    """Whether one flipped bit, anywhere in the frame, explains what is wrong with it."""
    wrong_salt_bits = _different_bits(frame.salts, salts)
    computed = checksum(frame.words, before)
    if wrong_salt_bits:
        return wrong_salt_bits == 1 and computed == frame.stored
    return _different_bits(computed, frame.stored) == 1 or _one_word_bit(computed, frame.stored, len(frame.words))


def _different_bits(one: Sums, other: Sums) -> int:
    return (one[0] ^ other[0]).bit_count() + (one[1] ^ other[1]).bit_count()


def _one_word_bit(computed: Sums, stored: Sums, words: int) -> bool:
    """Adding d to one word adds d times a known pair of factors to the sums: look for a place where d is a power of
    two, or minus one (a bit that was set, or cleared)."""
    wanted = ((stored[0] - computed[0]) & _MASK, (stored[1] - computed[1]) & _MASK)
    powers = {1 << bit for bit in range(32)} | {-(1 << bit) & _MASK for bit in range(32)}
    for factors in _factors(words):
        at = 0 if factors[0] & 1 else 1  # neighbours of Fibonacci's sequence: one of them is odd, so it has an inverse
        change = wanted[at] * pow(factors[at], -1, 1 << 32) & _MASK
        if change in powers and change * factors[1 - at] & _MASK == wanted[1 - at]:
            return True
    return False


def _factors(words: int) -> Iterator[Sums]:
    """By how much the two sums grow when a word grows by one; from the last word to the first."""
    odd, even = (0, 1), (1, 1)
    for _ in range(words // 2):
        yield odd
        yield even
        odd = ((odd[0] + odd[1]) & _MASK, (odd[0] + 2 * odd[1]) & _MASK)
        even = ((even[0] + even[1]) & _MASK, (even[0] + 2 * even[1]) & _MASK)


def _is_followed(wal: _Wal, wrong: int, salts: Sums) -> bool:
    """Whether a whole transaction comes after the one with the wrong frame: from a frame that commits, an unbroken
    chain to another one that does. What an older, longer torn write left behind a newer one is no such chain."""
    previous = wal.frame(wrong)
    is_after_commit = previous.commits and previous.salts == salts
    for number in range(wrong + 1, wal.count):
        frame = wal.frame(number)
        if frame.salts != salts:
            return False
        is_after_commit = is_after_commit and frame.follows(previous.stored)
        if frame.commits and is_after_commit:
            return True
        is_after_commit = is_after_commit or frame.commits
        previous = frame
    return False

"""The file format: everything that was written is read again, and nothing else ever is."""

from __future__ import annotations

import hashlib
import io
import secrets
import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm_common.backup import container
from pyswarm_common.backup.container import Damaged, Header, KnownManager, Reader, Summary, WrongKey, write
from pyswarm_common.backup.keys import KEY_BYTES, SALT_BYTES, PassphraseParams, key_id
from pyswarm_common.errors import InvalidArgument

KEY = b"k" * KEY_BYTES
PIECES = [b"first", b"", b"x" * 3000, b"last"]
SUMMARY = Summary((KnownManager("id", "n1", "192.0.2.1:2377", 7),), ("web",))


def header(**fields: object) -> Header:
    values: dict[str, object] = {
        "cluster_id": "c" * 25,
        "index": 42,
        "term": 3,
        "created_at": 1_700_000_000.0,
        "salt": b"s" * container.SALT_BYTES,
        "key_id": key_id(KEY),
        "counts": {"node": 3},
    }
    return Header(**{**values, **fields})  # type: ignore[arg-type]


def written(head: Header | None = None) -> bytes:
    return b"".join(write(head or header(), SUMMARY, KEY, PIECES))


WHOLE = written()


def read(data: bytes, key: bytes = KEY) -> list[bytes]:
    """Everything, as a restore reads it."""
    reader = Reader(io.BytesIO(data))
    reader.summary(key)
    return list(reader.pieces())


def frames(data: bytes) -> list[bytes]:
    """The header, then each frame, then the checksum."""
    length = struct.unpack(">I", data[8:12])[0]
    parts, at = [data[: 12 + length]], 12 + length
    while data[at] != 0xFF:
        size = struct.unpack(">BI", data[at : at + 5])[1]
        parts.append(data[at : at + 5 + size])
        at += 5 + size
    return parts


def resealed(parts: list[bytes]) -> bytes:
    """What an attacker can do, who has no key but can make the checksum right."""
    data = b"".join(parts) + struct.pack(">BI", 0xFF, 0)
    return data + hashlib.sha256(data).digest()


def test_what_was_written_is_read() -> None:
    reader = Reader(io.BytesIO(WHOLE))
    assert reader.header == header()
    assert reader.summary(KEY) == SUMMARY
    assert list(reader.pieces()) == PIECES
    assert reader.size_bytes == len(WHOLE)


def test_without_the_key_the_checksum_is_verified_and_nothing_can_be_read() -> None:
    assert Reader(io.BytesIO(WHOLE)).check() == len(WHOLE)
    assert not [piece for piece in PIECES if len(piece) > 3 and piece in WHOLE]
    assert b"192.0.2.1" not in WHOLE


def test_two_backups_of_the_same_state_share_no_bytes_of_their_pieces() -> None:
    other = written(header(salt=secrets.token_bytes(container.SALT_BYTES)))
    assert not set(frames(WHOLE)[1:]) & set(frames(other)[1:])


def test_the_wrong_key_is_said_to_be_wrong() -> None:
    with pytest.raises(WrongKey, match=key_id(KEY)):
        read(WHOLE, b"o" * KEY_BYTES)
    with_passphrase = written(header(key_id="", passphrase=PassphraseParams(b"p" * SALT_BYTES)))
    with pytest.raises(WrongKey, match="passphrase is wrong"):
        read(with_passphrase, b"o" * KEY_BYTES)


def test_a_file_that_ends_early_is_damaged_wherever_it_ends() -> None:
    for size in range(len(WHOLE)):
        for act in (read, lambda data: Reader(io.BytesIO(data)).check()):
            with pytest.raises(Damaged):
                act(WHOLE[:size])


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_changed_byte_is_found_with_and_without_the_key(place: int, change: int) -> None:
    data = bytearray(WHOLE)
    data[place] ^= change
    for act in (read, lambda changed: Reader(io.BytesIO(changed)).check()):
        with pytest.raises(InvalidArgument):
            act(bytes(data))


def test_frames_that_were_moved_doubled_or_left_out_are_found_although_the_checksum_is_right() -> None:
    parts = frames(WHOLE)
    assert read(resealed(parts)) == PIECES
    head, sealed = parts[0], parts[1:]
    forged = [[*sealed[:i], *sealed[i + 1 :]] for i in range(len(sealed))]
    forged += [[*sealed[:i], sealed[i], *sealed[i:]] for i in range(len(sealed))]
    forged += [[*sealed[:i], b, a, *sealed[i + 2 :]] for i, (a, b) in enumerate(pairwise(sealed))]
    forged += [sealed[:i] for i in range(len(sealed))]
    for frames_in_wrong_order in forged:
        with pytest.raises(InvalidArgument):
            read(resealed([head, *frames_in_wrong_order]))


def test_frames_of_another_backup_with_the_same_key_do_not_fit() -> None:
    other = frames(written(header(index=43)))
    with pytest.raises(InvalidArgument):
        read(resealed([frames(WHOLE)[0], *other[1:]]))


def test_what_follows_the_end_is_found() -> None:
    with pytest.raises(Damaged, match="follows its end"):
        read(WHOLE + b"!")


def test_another_format_says_which_version_reads_it() -> None:
    with pytest.raises(InvalidArgument, match="has format 2 and this pyswarm reads 1"):
        Reader(io.BytesIO(written(header(format=2))))


@pytest.mark.parametrize(
    "head",
    [
        header(salt=b"short"),
        header(created_at=float("nan")),
        header(index=-1),
        header(passphrase=PassphraseParams(b"p" * SALT_BYTES, log2_n=40)),
        header(passphrase=PassphraseParams(b"p" * SALT_BYTES, log2_n=4)),
    ],
)
def test_an_impossible_header_is_refused(head: Header) -> None:
    with pytest.raises(InvalidArgument):
        Reader(io.BytesIO(written(head)))


@settings(max_examples=300)
@given(st.binary(max_size=400), st.sampled_from([b"", WHOLE[:8], WHOLE[:12], WHOLE[:60], frames(WHOLE)[0]]))
def test_rubbish_never_gives_more_than_one_sentence(rubbish: bytes, beginning: bytes) -> None:
    with pytest.raises(InvalidArgument):
        read(beginning + rubbish)


def test_deeply_nested_rubbish_in_the_header_is_refused() -> None:
    encoded = b"\x82\xa6format\x01\xa1x" + b"\x91" * 40_000 + b"\xc0"
    with pytest.raises(InvalidArgument):
        Reader(io.BytesIO(WHOLE[:8] + struct.pack(">I", len(encoded)) + encoded))


def test_a_reader_takes_no_more_memory_than_a_piece_may_have() -> None:
    head = frames(WHOLE)[0]
    with pytest.raises(Damaged, match="impossible"):
        read(head + struct.pack(">BI", 2, 0xFFFFFFFF))

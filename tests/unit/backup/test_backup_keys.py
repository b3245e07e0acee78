"""Keys as people keep them, and keys that follow from a passphrase."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common.backup.keys import (
    KEY_BYTES,
    SALT_BYTES,
    PassphraseParams,
    check_passphrase,
    derive,
    format_key,
    key_id,
    parse_key,
)
from pyswarm_common.errors import InvalidArgument

CHEAP = PassphraseParams(b"s" * SALT_BYTES, log2_n=14)


@given(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES))
def test_a_key_survives_being_written_down(key: bytes) -> None:
    assert parse_key(f"  {format_key(key)}\n") == key


@given(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), st.integers(0, 55), st.sampled_from("abcxyz234567"))
def test_a_slip_of_the_pen_is_told_from_a_wrong_key(key: bytes, place: int, letter: str) -> None:
    text = format_key(key)
    at = len(text) - 56 + place
    mistyped = text[:at] + letter + text[at + 1 :]
    if mistyped != text:
        with pytest.raises(InvalidArgument, match="mistyped"):
            parse_key(mistyped)


@given(st.text(max_size=200))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    for candidate in (text, f"SWMBAK-1-{text}"):
        with pytest.raises(InvalidArgument) as refused:
            parse_key(candidate)
        assert len(text) < 8 or text not in str(refused.value)


def test_an_id_tells_keys_apart_and_gives_nothing_away() -> None:
    one, other = b"a" * KEY_BYTES, b"b" * KEY_BYTES
    assert key_id(one) != key_id(other)
    assert key_id(one) not in format_key(one)


def test_the_same_passphrase_and_salt_make_the_same_key_and_nothing_else_does() -> None:
    key = derive("correct horse", CHEAP)
    assert key == derive("correct horse", CHEAP)
    assert key != derive("correct horsf", CHEAP)
    assert key != derive("correct horse", PassphraseParams(b"t" * SALT_BYTES, log2_n=14))


@pytest.mark.parametrize("passphrase", ["", "short", "x" * 1025])
def test_a_passphrase_that_protects_nothing_is_refused_without_being_repeated(passphrase: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_passphrase(passphrase)
    assert not passphrase or passphrase not in str(refused.value)

"""Lock keys, locked files, and the lock of one machine."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.identity.locks import LOCKED, WRONG_KEY, Locked, LockKey, WrongKey, is_locked, locked, unlocked
from pyswarm_node.machine_lock import FILE, MachineLock

KEY, OTHER = LockKey(bytes(range(32))), LockKey(bytes(32))


def test_a_token_is_of_dockers_form_and_read_back() -> None:
    token = KEY.token()
    assert token.startswith("SWMKEY-1-")
    assert len(token) == len("SWMKEY-1-") + 43
    assert "=" not in token
    assert LockKey.parse(f"  {token}\n") == KEY


def test_each_key_is_another_one() -> None:
    assert LockKey.generate() != LockKey.generate()


@given(
    st.text() | st.text(alphabet="SWMKEY-1abcXYZ+/=", max_size=60) | st.binary().map(lambda raw: raw.decode("latin1"))
)
def test_any_text_is_a_key_or_refused(text: str) -> None:
    for candidate in (text, "SWMKEY-1-" + text, "SWMKEY-1-" + text[:43].ljust(43, "A")):
        try:
            key = LockKey.parse(candidate)
        except WrongKey:
            continue
        assert len(key.secret) == 32


def test_a_key_shows_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").info("%s %r", KEY, KEY)
    shown = caplog.text + repr(KEY) + str(KEY) + f"{KEY}"
    assert KEY.token() not in shown
    assert repr(KEY.secret) not in shown


@given(content=st.binary(max_size=500))
def test_what_was_locked_is_unlocked_with_the_same_key_for_the_same_purpose_only(content: bytes) -> None:
    closed = locked(content, "node key", KEY)
    assert is_locked(closed)
    assert unlocked(closed, "node key", KEY) == content
    for purpose, key in (("node key", OTHER), ("raft keys", KEY)):
        with pytest.raises(WrongKey):
            unlocked(closed, purpose, key)
    with pytest.raises(Locked):
        unlocked(closed, "node key", None)
    assert locked(content, "x", None) == content


@given(st.data())
def test_a_changed_file_is_never_opened(data: st.DataObject) -> None:
    closed = bytearray(locked(b"-----BEGIN PRIVATE KEY-----", "node key", KEY))
    at = data.draw(st.integers(len(b"PYSWARM-LOCKED-1\n"), len(closed) - 1))
    closed[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(WrongKey):
        unlocked(bytes(closed), "node key", KEY)


@given(st.binary(max_size=200))
def test_any_bytes_after_the_mark_are_refused(rest: bytes) -> None:
    with pytest.raises(WrongKey):
        KEY.unlock(b"PYSWARM-LOCKED-1\n" + rest, "node key")


def test_the_words_are_dockers() -> None:
    assert str(Locked()) == LOCKED
    assert str(WrongKey()) == WRONG_KEY
    assert isinstance(WrongKey(), InvalidArgument)


# ---- the machine's lock ------------------------------------------------------------------------------------------


def test_a_machine_without_a_lock_is_open(tmp_path: Path) -> None:
    lock = MachineLock(tmp_path)
    assert not lock.is_locked
    assert lock.master is None


def test_a_lock_closes_at_the_next_start_and_opens_with_its_key_only(tmp_path: Path) -> None:
    first = MachineLock(tmp_path)
    first.put_on(KEY)
    master = first.master
    assert master is not None
    assert not first.is_locked
    again = MachineLock(tmp_path)
    assert again.is_locked
    with pytest.raises(Locked):
        _ = again.master
    with pytest.raises(WrongKey):
        again.open(OTHER)
    assert again.is_locked
    again.open(KEY)
    assert again.master == master


def test_a_new_unlock_key_keeps_the_master_key(tmp_path: Path) -> None:
    lock = MachineLock(tmp_path)
    lock.put_on(KEY)
    master = lock.master
    lock.put_on(OTHER)
    assert lock.master == master
    again = MachineLock(tmp_path)
    with pytest.raises(WrongKey):
        again.open(KEY)
    again.open(OTHER)
    assert again.master == master


def test_the_file_holds_neither_key(tmp_path: Path) -> None:
    lock = MachineLock(tmp_path)
    lock.put_on(KEY)
    content = (tmp_path / FILE).read_bytes()
    assert lock.master is not None
    assert KEY.secret not in content
    assert lock.master.secret not in content
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_the_same_key_again_writes_nothing(tmp_path: Path) -> None:
    lock = MachineLock(tmp_path)
    lock.put_on(KEY)
    before = (tmp_path / FILE).read_bytes()
    lock.put_on(KEY)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_lock_that_is_taken_off_is_gone(tmp_path: Path) -> None:
    lock = MachineLock(tmp_path)
    lock.put_on(KEY)
    lock.take_off()
    assert lock.master is None
    assert not (tmp_path / FILE).exists()
    assert not MachineLock(tmp_path).is_locked

"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyswarm_common.files import read_bounded, remove_from_folder, write_private, write_whole


def test_only_the_owner_reads_what_is_private_even_where_a_draft_of_another_mode_lay(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "key"
    write_private(path, b"old")
    draft = path.with_name("key.new")
    draft.write_bytes(b"a crash left this, which is longer")
    draft.chmod(0o644)
    write_private(path, b"secret")
    assert path.read_bytes() == b"secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_the_old_content_stays_when_the_new_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_whole(path, b"old")
    path.with_name("state.json.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_file_is_read_up_to_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    assert read_bounded(path, 4) == b"1234"
    with pytest.raises(ValueError, match="larger than 3 bytes"):
        read_bounded(path, 3)


def test_a_folder_goes_with_its_last_file(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_bytes(b"x")
    remove_from_folder(folder / "a")
    assert [path.name for path in folder.iterdir()] == ["b"]
    remove_from_folder(folder / "b")
    remove_from_folder(folder / "b")
    assert not folder.exists()
    assert tmp_path.exists()

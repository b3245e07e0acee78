"""`task cp` on this machine's side: docker's rules for names, and streams that were made to do harm."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_cli.commands.task_cp import remote
from pyswarm_cli.entering.local_files import packed, unpack
from pyswarm_common.errors import InvalidArgument, NotFound, PyswarmError


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"", mode: int = 0o644) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size, member.mode = kind, link, len(data), mode
    return member.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


def stream(*entries: bytes) -> Iterator[bytes]:
    whole = b"".join(entries) + bytes(1024)
    for start in range(0, len(whole), 700):
        yield whole[start : start + 700]


def contents(top: Path) -> dict[str, bytes | str | None]:
    out: dict[str, bytes | str | None] = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        out[name] = str(path.readlink()) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
    return out


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "a").write_bytes(b"a" * 300_000)
    (top / "sub/b").write_bytes(b"")
    (top / "link").symlink_to("/etc/passwd")
    return top


def test_a_tree_comes_back_as_it_was(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    unpack(packed(str(tree), follow=False), str(tmp_path / "into"))
    unpack(packed(str(tree), follow=False), str(tmp_path / "renamed"))
    unpack(packed(f"{tree}/.", follow=False), str(tmp_path / "into"))
    expected = contents(tree)
    assert contents(tmp_path / "into/tree") == contents(tmp_path / "renamed") == expected
    assert expected.items() <= contents(tmp_path / "into").items()


def test_a_link_is_copied_or_followed(tree: Path, tmp_path: Path) -> None:
    (tree / "link").unlink()
    (tree / "link").symlink_to("a")
    unpack(packed(str(tree / "link"), follow=True), str(tmp_path / "followed"))
    unpack(packed(str(tree / "link"), follow=False), str(tmp_path / "kept"))
    assert (tmp_path / "followed").read_bytes() == b"a" * 300_000
    assert not (tmp_path / "followed").is_symlink()
    assert (tmp_path / "kept").readlink() == Path("a")


def test_places_that_are_not_there(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file or directory"):
        list(packed(str(tmp_path / "none"), follow=False))
    with pytest.raises(InvalidArgument, match="is not a directory"):
        list(packed(f"{tree}/a/", follow=False))
    for destination in (f"{tmp_path}/none/", f"{tmp_path}/none/deeper"):
        with pytest.raises(NotFound, match="no such directory"):
            unpack(stream(entry("a")), destination)


@pytest.mark.parametrize("name", ["../evil", "d/../../evil", "/../evil"])
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "into").mkdir()
    with pytest.raises(InvalidArgument, match="leads outside"):
        unpack(stream(entry(name, data=b"x")), str(tmp_path / "into"))
    assert contents(tmp_path) == {"into": None}


def test_a_link_that_came_before_is_never_followed(tmp_path: Path) -> None:
    outside, into = tmp_path / "outside", tmp_path / "into"
    outside.mkdir()
    into.mkdir()
    for attack in (
        (entry("d", tarfile.SYMTYPE, str(outside)), entry("d/evil", data=b"x")),
        (entry("d", tarfile.SYMTYPE, str(outside)), entry("e", tarfile.LNKTYPE, "d/file")),
        (entry("d", tarfile.SYMTYPE, str(outside)), entry("d/deep/er", tarfile.DIRTYPE)),
    ):
        with pytest.raises(InvalidArgument, match="a link is on the way"):
            unpack(stream(*attack), str(into))
    assert contents(outside) == {}


def test_a_file_takes_the_place_of_a_link_and_not_of_its_target(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    into = tmp_path / "into"
    into.mkdir()
    unpack(stream(entry("f", tarfile.SYMTYPE, str(victim)), entry("f", data=b"new")), str(into))
    assert victim.read_text() == "kept"
    assert (into / "f").read_bytes() == b"new"


def test_a_directory_never_takes_the_place_of_a_file(tree: Path, tmp_path: Path) -> None:
    """It used to: a directory copied onto /etc/passwd by mistake was all that was left of it."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    with pytest.raises(InvalidArgument, match="cannot overwrite non-directory"):
        unpack(packed(str(tree), follow=False), str(victim))
    assert victim.read_text() == "kept"


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    """As `/dev/null` would be: a device on the way is refused, by its kind."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for destination in (pipe, link):
        with pytest.raises(InvalidArgument, match="must be a directory or a regular file: got an irregular file"):
            unpack(stream(entry("f", data=b"x")), str(destination))
    assert pipe.is_fifo()
    assert link.is_symlink()


def test_a_link_that_the_user_names_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    unpack(stream(entry("f", data=b"new")), str(tmp_path / "link"))
    assert (tmp_path / "file").read_text() == "new"
    assert (tmp_path / "link").is_symlink()


def test_rights_that_would_do_harm_do_not_come_along(tmp_path: Path) -> None:
    unpack(stream(entry("f", data=b"x", mode=0o6755), entry("d/p", tarfile.FIFOTYPE)), str(tmp_path))
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "f").stat().st_uid == os.geteuid()
    assert not (tmp_path / "d/p").exists()


def test_a_device_is_not_said_to_have_been_copied(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="zero is no file, directory or link"):
        unpack(stream(entry("zero", tarfile.CHRTYPE)), str(tmp_path / "here"))


def test_a_header_may_not_fill_the_memory_nor_holes_the_disk(tmp_path: Path) -> None:
    header = tarfile.TarInfo("h")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    with pytest.raises(InvalidArgument, match="a header of"):
        unpack(iter([header.tobuf(tarfile.GNU_FORMAT)]), str(tmp_path))
    holes = tarfile.TarInfo("holes")
    holes.pax_headers = {"GNU.sparse.size": str(1 << 50), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,1"}
    with pytest.raises(InvalidArgument, match="a file with holes"):
        unpack(stream(holes.tobuf(tarfile.PAX_FORMAT)), str(tmp_path))
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("mtime", ["1e300", "-1e300", "nan", "inf"])
def test_a_time_that_no_file_can_have_refuses_nothing(tmp_path: Path, mtime: str) -> None:
    member = tarfile.TarInfo("f")
    member.pax_headers = {"mtime": mtime}
    unpack(stream(member.tobuf(tarfile.PAX_FORMAT)), str(tmp_path))
    assert (tmp_path / "f").exists()


@given(data=st.binary(max_size=2000))
def test_no_stream_brings_anything_but_a_refusal(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    into = tmp_path_factory.mktemp("into")
    with contextlib.suppress(PyswarmError):
        unpack(iter([data]), str(into))


def test_a_stream_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = entry("f", data=b"x" * 5000)
    with pytest.raises(InvalidArgument, match="incomplete or damaged"):
        unpack(iter([whole[:3000]]), str(tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web.1:/etc", ("web.1", "/etc")),
        ("web.1:relative", ("web.1", "relative")),
        ("/a:b", None),
        ("./a:b", None),
        ("dir/a:b", None),
        ("-", None),
        ("plain", None),
    ],
)
def test_which_side_is_the_container(text: str, expected: tuple[str, str] | None) -> None:
    assert remote(text) == expected


def test_a_container_without_a_path_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="names no path"):
        remote("web.1:")


def test_what_is_packed_is_a_tar_that_others_read(tree: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(b"".join(packed(str(tree), follow=False)))) as archive:
        assert archive.getnames() == ["tree", "tree/a", "tree/link", "tree/sub", "tree/sub/b"]

"""Hostile and ordinary layers, unpacked by the function itself (as root, since devices and owners are part of it)."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pyswarm_common.errors import Exhausted, InvalidArgument
from pyswarm_runtime.image_model import digest_of
from pyswarm_runtime.unpack import UnpackResult, unpack_layer

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes devices and changes owners")]
Add = Callable[[tarfile.TarFile], None]


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> Add:
    def add(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.mode = kind, len(data), 0o755 if kind == tarfile.DIRTYPE else 0o644
        for key, value in fields.items():
            setattr(member, key, value)
        archive.addfile(member, io.BytesIO(data))

    return add


def file(name: str, data: bytes = b"data", **fields: Any) -> Add:
    return entry(name, data=data, **fields)


def symlink(name: str, target: str) -> Add:
    return entry(name, tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> Add:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def device(name: str, major: int, minor: int, kind: bytes = tarfile.CHRTYPE) -> Add:
    return entry(name, kind, devmajor=major, devminor=minor)


def layer(*entries: Add) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for add in entries:
            add(archive)
    return buffer.getvalue()


class Place:
    """The directory to unpack into, and one beside it that must not change."""

    def __init__(self, base: Path) -> None:
        self.root, self.outside = base / "root", base / "outside"
        self.root.mkdir()
        self.outside.mkdir()
        (self.outside / "victim").write_text("untouched")

    def unpack(self, data: bytes, max_bytes: int = 10**8, max_entries: int = 1000) -> UnpackResult:
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return unpack_layer(io.BytesIO(data), fd, max_bytes, max_entries)
        finally:
            os.close(fd)

    def check_outside(self) -> None:
        assert [path.name for path in self.outside.iterdir()] == ["victim"]
        assert (self.outside / "victim").read_text() == "untouched"
        assert (self.outside / "victim").stat().st_nlink == 1
        assert sorted(path.name for path in self.outside.parent.iterdir()) == ["outside", "root"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_an_ordinary_layer(place: Place) -> None:
    data = layer(
        entry("./", tarfile.DIRTYPE, mode=0o711),
        entry("bin", tarfile.DIRTYPE, uid=3, gid=4, mtime=1000),
        file("bin/su", b"program", mode=0o4755, uid=5, gid=6, mtime=2000),
        symlink("sbin", "bin"),
        file("sbin/more", b"through a link of the layer"),
        hardlink("bin/sudo", "bin/su"),
        entry("run/fifo", tarfile.FIFOTYPE),
    )
    result = place.unpack(data)
    assert (result.entries, result.diff_id) == (7, digest_of(data))
    program = (place.root / "bin/su").lstat()
    assert stat.S_IMODE(program.st_mode) == 0o4755
    assert (program.st_uid, program.st_gid, program.st_mtime, program.st_nlink) == (5, 6, 2000.0, 2)
    assert (place.root / "bin").stat().st_mtime == 1000.0
    assert (place.root / "bin/more").read_text() == "through a link of the layer"
    assert stat.S_ISFIFO((place.root / "run/fifo").lstat().st_mode)
    assert stat.S_IMODE(place.root.stat().st_mode) == 0o711


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_compressed(place: Place, compress: Callable[[bytes], bytes]) -> None:
    data = layer(file("a", os.urandom(300_000)), file("b"))
    assert place.unpack(compress(data)).diff_id == digest_of(data)
    assert (place.root / "b").read_text() == "data"


def test_gzip_of_several_members(place: Place) -> None:
    data = layer(file("a", b"x" * 3000))
    assert place.unpack(gzip.compress(data[:700]) + gzip.compress(data[700:])).diff_id == digest_of(data)


def test_absolute_paths_stay_below(place: Place) -> None:
    place.unpack(layer(file(f"{place.outside}/victim", b"new"), file("/etc/x")))
    assert (place.root / str(place.outside)[1:] / "victim").read_text() == "new"
    assert (place.root / "etc/x").exists()
    place.check_outside()


@pytest.mark.parametrize("name", ["../outside/victim", "a/../../outside/victim", "a/..", "..", "/../x"])
def test_dot_dot_is_refused(place: Place, name: str) -> None:
    with pytest.raises(InvalidArgument, match="leads outside"):
        place.unpack(layer(file(name, b"new")))
    place.check_outside()


@pytest.mark.parametrize("target", ["../outside", "../../../../../../..{outside}", "{outside}"])
def test_writing_through_a_link_stays_below(place: Place, target: str) -> None:
    link = target.format(outside=place.outside)
    with pytest.raises(InvalidArgument):  # below the root there is no such directory
        place.unpack(layer(symlink("link", link), file("link/victim", b"new")))
    place.check_outside()


def test_a_link_is_replaced_not_followed(place: Place) -> None:
    place.unpack(layer(symlink("x", f"{place.outside}/victim"), file("x", b"new")))
    assert not (place.root / "x").is_symlink()
    place.check_outside()


def test_a_directory_entry_does_not_follow_a_link(place: Place) -> None:
    place.unpack(layer(symlink("d", str(place.outside)), entry("d", tarfile.DIRTYPE, mode=0o700), file("d/new")))
    assert (place.root / "d").is_dir()
    assert not (place.root / "d").is_symlink()
    place.check_outside()


def test_attributes_of_a_link_are_not_its_targets(place: Place) -> None:
    victim = place.outside / "victim"
    before = victim.stat()
    place.unpack(layer(entry("x", tarfile.SYMTYPE, linkname=str(victim), uid=7, gid=7, mode=0o777, mtime=5)))
    after = victim.stat()
    assert (before.st_uid, before.st_mode, before.st_mtime) == (after.st_uid, after.st_mode, after.st_mtime)


@pytest.mark.parametrize("target", ["../outside/victim", "{outside}/victim", "nothing", "link/victim"])
def test_hard_links_out_are_refused(place: Place, target: str) -> None:
    with pytest.raises(InvalidArgument):
        place.unpack(layer(symlink("link", str(place.outside)), hardlink("x", target.format(outside=place.outside))))
    place.check_outside()


def test_a_hard_link_to_a_symbolic_link_links_the_link(place: Place) -> None:
    place.unpack(layer(symlink("s", f"{place.outside}/victim"), hardlink("h", "s"), file("h", b"new")))
    place.check_outside()


def test_links_in_a_circle(place: Place) -> None:
    with pytest.raises(InvalidArgument):
        place.unpack(layer(symlink("a", "b"), symlink("b", "a"), file("a/x")))


def test_whiteouts(place: Place) -> None:
    place.unpack(
        layer(file("d/.wh.gone", b""), file("e/.wh..wh..opq", b""), file("e/.wh..wh.plnk", b""), file("e/new"))
    )
    gone = (place.root / "d/gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert os.getxattr(place.root / "e", "trusted.overlay.opaque") == b"y"
    assert [path.name for path in (place.root / "e").iterdir()] == ["new"]


@pytest.mark.parametrize("name", [".wh.", ".wh...", "a/.wh.."])
def test_whiteouts_of_nothing_are_refused(place: Place, name: str) -> None:
    with pytest.raises(InvalidArgument, match="whiteout"):
        place.unpack(layer(file(name, b"")))


def test_only_harmless_devices(place: Place) -> None:
    result = place.unpack(
        layer(
            device("dev/null", 1, 3), device("dev/mem", 1, 1), device("sda", 8, 0, tarfile.BLKTYPE), device("z", 0, 0)
        )
    )
    assert result.skipped_devices == 3
    assert [path.name for path in place.root.iterdir()] == ["dev"]
    assert [path.name for path in (place.root / "dev").iterdir()] == ["null"]


def test_overlay_attributes_are_not_the_layers_to_set(place: Place) -> None:
    headers = {"SCHILY.xattr.trusted.overlay.redirect": "/", "SCHILY.xattr.user.mine": "yes"}
    place.unpack(layer(file("x", pax_headers=headers)))
    kept = os.listxattr(place.root / "x")
    assert "trusted.overlay.redirect" not in kept


def test_later_entries_win(place: Place) -> None:
    place.unpack(
        layer(file("x", b"1"), file("x", b"22"), entry("y", tarfile.DIRTYPE), file("y/in"), file("y", b"now a file"))
    )
    assert (place.root / "x").read_text() == "22"
    assert (place.root / "y").read_text() == "now a file"


def test_a_directory_that_was_replaced_is_not_written_to(place: Place) -> None:
    place.unpack(layer(file("d/a"), file("d", b"file"), entry("d", tarfile.DIRTYPE), file("d/b")))
    assert [path.name for path in (place.root / "d").iterdir()] == ["b"]


def test_a_file_in_the_way_of_a_directory(place: Place) -> None:
    with pytest.raises(InvalidArgument):
        place.unpack(layer(file("d", b"file"), file("d/b")))


def test_limits(place: Place) -> None:
    with pytest.raises(Exhausted, match="more than 3 entries"):
        place.unpack(layer(*(file(str(number)) for number in range(4))), max_entries=3)
    bomb = gzip.compress(layer(file("zeros", bytes(5_000_000))))
    assert len(bomb) < 50_000
    with pytest.raises(Exhausted, match="unpacks to more than"):
        place.unpack(bomb, max_bytes=1_000_000)


def test_a_header_that_claims_gigabytes(place: Place) -> None:
    member = tarfile.TarInfo("pax")
    member.type, member.size = tarfile.XHDTYPE, 7 * 10**9
    with pytest.raises(Exhausted, match="header"):
        place.unpack(member.tobuf() + bytes(4096))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 600,
        b"\x1f\x8b" + bytes(30),
        b"\x28\xb5\x2f\xfd" + b"x" * 30,
        b"BZh91AY",
        layer(file("x", b"y" * 999))[:700],
        gzip.compress(layer(file("x", os.urandom(5000))))[:-2000],
    ],
)
def test_damage_is_refused_in_words(place: Place, data: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"archive|stream|layer"):
        place.unpack(data)

"""The small image of busybox."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from pyswarm_lab.image import BUSYBOX, write_rootfs

pytestmark = pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static")


def test_it_holds_busybox_its_applets_and_the_scripts(tmp_path: Path) -> None:
    write_rootfs(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        entries = {entry.name: entry for entry in archive}
    assert entries["bin/sh"].linkname == "busybox"
    assert entries["bin/busybox"].size == BUSYBOX.stat().st_size
    for script in ("bin/serve", "bin/ask", "www/cgi-bin/index.cgi"):
        assert entries[script].mode == 0o755
    assert all(not name.startswith("/") and ".." not in name for name in entries)


def test_the_same_busybox_gives_the_same_archive(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        write_rootfs(tmp_path / name)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()

"""A lab of real daemons, driven only by the `pyswarm` command, as a user would.

One lab of five hosts serves the whole session; it is removed whatever happens, and then nothing may be left of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_cluster import IMAGE, Cluster, lab_with_clean_end

from pyswarm_lab.image import CHANGES, write_rootfs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this needs root, and more time than a unit test."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.timeout(300))
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root: a lab makes namespaces and interfaces"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three managers (n1 to n3) and two workers, with an image on n1 only."""
    for made in lab_with_clean_end(f"e2e-{os.getpid()}", "--managers", "3", "--workers", "2"):
        archive = tmp_path_factory.mktemp("image") / "rootfs.tar"
        write_rootfs(archive)
        changes = [part for change in CHANGES for part in ("--change", change)]
        made.run("n1", "image", "import", *changes, str(archive), IMAGE)
        yield made

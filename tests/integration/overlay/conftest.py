"""Labs of two hosts for each test, gone afterwards whatever happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay_lab import Lab, lab_of


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with lab_of(tmp_path, hosts=2) as made:
        for host in made.hosts:
            host.start()
        yield made

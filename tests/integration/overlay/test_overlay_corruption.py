"""A host damaged at random is whole again within ten seconds, as administrators' tools and real traffic see it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from overlay_damage import run

pytestmark = pytest.mark.root

NUMBER = int(os.environ.get("PYSWARM_DAMAGES", "36"))
SEED = int(os.environ.get("PYSWARM_SEED", "0")) or random.SystemRandom().randrange(1 << 32)


def test_random_damage_is_found_and_healed(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    _times, done = run(tmp_path, NUMBER, SEED, at_once=12)
    assert sum(done.values()) == NUMBER

"""The simulator finds the bugs that are planted for it, each within the number of seeds it says."""

from __future__ import annotations

import logging

import pytest

from pyswarm_simulator import mutants
from pyswarm_simulator.planting import MUTANTS, hunt

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

assert mutants.__all__, "importing them registers them"


def test_there_are_enough_of_them() -> None:
    assert len(MUTANTS) >= 25


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    logging.disable(logging.CRITICAL)
    try:
        found = hunt(MUTANTS[name])
    finally:
        logging.disable(logging.NOTSET)
    assert found is not None, f"{MUTANTS[name].seeds} seeds of {MUTANTS[name].profile} do not find it"

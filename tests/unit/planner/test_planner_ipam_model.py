"""Ten thousand random operations: addresses allocated are addresses in use, whatever happened."""

from __future__ import annotations

import pytest
from ipam_model import IpamModel, check_addresses, check_new_leader, held, remove_everything

SEEDS, OPERATIONS, BETWEEN = 10, 1_000, 25


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_leaks(seed: int) -> None:
    model = IpamModel(seed)
    for number in range(1, OPERATIONS + 1):
        model.step()
        if number % BETWEEN == 0:
            model.quiet()
            check_addresses(model.world)
            check_new_leader(model.world)
    assert min(model.counts[operation.__name__] for operation in model.operations) > 5
    remove_everything(model)
    assert not held(model.world)
    assert not model.world.tables.networks
    assert not any(book.ranges or book.is_held(0) for book in model.world.ledger.books.values())

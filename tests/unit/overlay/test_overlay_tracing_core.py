"""What a trace works out by itself."""

from __future__ import annotations

import pytest

from pyswarm_overlay.tracing.near import sender

OWN = (("blue", "10.1.0.5"), ("blue", "fd01::5"), ("red", "10.2.0.5"))


@pytest.mark.parametrize(
    ("network", "to", "expected"),
    [
        ("blue", "10.1.0.9", "10.1.0.5"),
        ("blue", "fd01::9", "fd01::5"),
        ("red", "10.2.0.9", "10.2.0.5"),
        ("red", "fd02::9", ""),
    ],
    ids=["first family", "second family", "other network", "no such family"],
)
def test_a_packet_comes_from_the_address_of_its_family(network: str, to: str, expected: str) -> None:
    assert sender(OWN, network, to) == expected

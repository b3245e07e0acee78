"""What a network may be, by itself. Whether its subnet is free is decided where the network is made."""

from __future__ import annotations

from collections.abc import Iterator

from pyswarm_common.model import NetworkSpec
from pyswarm_common.network_options import problems
from pyswarm_manager.api.validate.addressing import check_addressing
from pyswarm_manager.api.validate.driver import check_driver
from pyswarm_manager.api.validate.fields import Violation, check_labels, check_name
from pyswarm_manager.store.tables import HOST_NETWORK

OVERLAY = "overlay"
PREDEFINED = frozenset({"bridge", HOST_NETWORK, "none"})
"""Networks that every host has of its own."""


def check_network_spec(spec: NetworkSpec) -> Iterator[Violation]:
    yield from check_name(spec.name)
    yield from check_labels(spec.labels)
    yield from check_driver(spec)
    yield from check_addressing(spec)
    for sentence in problems(spec.driver, spec.options, config_only=spec.config_only):
        yield "options", sentence

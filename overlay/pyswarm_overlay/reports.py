"""What verification and tracing say: plain values for whoever shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PlaceName = tuple[str, str]
"""Kind of place ("host", "network", "sandbox") and its id."""
Outcome = Literal["ok", "warning", "stop"]
FROM_OUTSIDE = "ingress"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was wrong at one place. `left`: what still is, after a repair was tried (all of it, if none was)."""

    place: PlaceName
    name: str
    problems: tuple[str, ...]
    left: tuple[str, ...] = ()

    @property
    def is_repaired(self) -> bool:
        return not self.left


@dataclass(frozen=True, slots=True)
class Held:
    """A network's table as this host holds it."""

    network_id: str
    name: str
    version: int


@dataclass(frozen=True, slots=True)
class Report:
    """Of one look at everything. `checked`: how much there is, by what. `repairs`: since the daemon started."""

    checked: Mapping[str, int]
    findings: tuple[Finding, ...]
    tables: tuple[Held, ...] = ()
    repairs: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a way through the networks."""

    outcome: Outcome
    step: str
    text: str


@dataclass(frozen=True, slots=True)
class Hop:
    """One place that packets would go to. `node_address`: as the kernel has it; empty: this host.

    `source_address`: the container's own, or `FROM_OUTSIDE` for a client of a published port."""

    network_id: str
    network_name: str
    source_address: str
    address: str
    node_address: str = ""
    endpoint_id: str = ""
    port: int = 0
    """At the backend; 0: the one that was asked for."""


@dataclass(frozen=True, slots=True)
class Source:
    """The near side of a way."""

    steps: tuple[Step, ...]
    hops: tuple[Hop, ...]
    probe: Step | None = None

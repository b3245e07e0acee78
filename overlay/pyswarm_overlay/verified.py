"""The seam of verification: whoever keeps something in the kernel says how to compare it and how to repair it.

`verification` calls these; it decides when. A part that keeps kernel state of its own (a driver, an encrypted tunnel, a
policy table) implements `Verified` and is added to the one list in `audit/parts.py`.

`observe` must change nothing. What is under way in the part's own hands (a sandbox being built) is no problem: hold the
lock that the change holds. `repair` brings the kernel to what is wanted at that moment, whatever was found; it is
called only after the same problem was seen twice, a moment apart, and is followed by another `observe`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, Protocol

PlaceKind = Literal["host", "network", "sandbox"]
HOST_KEY = ""
"""The only key of parts whose state is in the host's own namespace."""


class Verified(Protocol):
    """Kernel state that one part keeps."""

    @property
    def place(self) -> PlaceKind:
        """In which namespaces it lives. A change heard there makes this part's state of the same key suspect."""
        ...

    def places(self) -> Collection[str]:
        """The keys of what there is to verify now: network ids, sandbox ids, or `HOST_KEY` alone."""
        ...

    async def observe(self, key: str) -> list[str]:
        """What is not as wanted, one sentence each; [] if all is well or the key is unknown."""
        ...

    async def repair(self, key: str) -> None:
        """Make it as wanted."""
        ...

    def size(self) -> dict[str, int]:
        """How much it keeps, by what: {"tunnel entries": 12}. For reports."""
        ...


class InTheHost:
    """The half of `Verified` that all parts share whose state is in the host's own namespace."""

    @property
    def place(self) -> Literal["host"]:
        return "host"

    def places(self) -> Collection[str]:
        return (HOST_KEY,)

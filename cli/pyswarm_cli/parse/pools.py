"""Address pools of the swarm, from flags. Pure: whether they are any good the daemon and the managers say."""

from __future__ import annotations

from collections.abc import Iterable


def pools(given: Iterable[str]) -> list[str]:
    """Of flags that hold one CIDR or several, with commas between them."""
    return [text.strip() for item in given for text in item.split(",")]


def pools_with(have: Iterable[str], given: Iterable[str]) -> list[str]:
    """Those given take the place of all of their family; the other family's stay."""
    fresh = pools(given)
    families = {":" in text for text in fresh}
    return [*(text for text in have if (":" in text) not in families), *fresh]

"""How a check says that something is wrong."""

from __future__ import annotations


class Violation(AssertionError):
    """A property that must hold does not."""

"""What every value of the model is."""

from __future__ import annotations

import msgspec


class Struct(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Base of every model value: immutable, encoded as a map without its defaults, so that fields can be added."""

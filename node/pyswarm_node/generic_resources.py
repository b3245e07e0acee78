"""Generic resources of this node, as its operator names them on the daemon's command line (docker's grammar).

`gpu=UUID1` is one certain thing (named; the kind is given once for each), `ssd=3` a number of things that are alike. A
kind is either named or counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import GenericResource

MAX_RESOURCES = 256
_KIND = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,62}")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.:/-]{0,127}")


def parse(texts: Sequence[str]) -> tuple[GenericResource, ...]:
    """InvalidArgument says what is wrong with one of them, or with all together."""
    found = tuple(_parse(text) for text in texts)
    if len(found) > MAX_RESOURCES:
        raise InvalidArgument(f"{len(found)} generic resources are too many: a node has {MAX_RESOURCES} at most")
    for kind in {resource.kind: None for resource in found}:
        of_kind = [resource for resource in found if resource.kind == kind]
        names = [resource.value for resource in of_kind if resource.value]
        if len(names) not in (0, len(of_kind)) or (not names and len(of_kind) > 1):
            raise InvalidArgument(f"generic resource {kind} is either one number, or a name for each")
        if len(set(names)) != len(names):
            raise InvalidArgument(f"generic resource {kind}: a name is given twice")
    return found


def _parse(text: str) -> GenericResource:
    kind, equals, value = text.partition("=")
    if not equals or not _KIND.fullmatch(kind):
        raise InvalidArgument(f"could not parse GenericResource: write {text or 'KIND'!r} as KIND=NAME or KIND=COUNT")
    if value.isascii() and value.isdigit():
        if not 0 < int(value[:19]) < 1 << 31:
            raise InvalidArgument(f"generic resource {kind}: a count is from 1 to {(1 << 31) - 1}")
        return GenericResource(kind=kind, count=int(value))
    if not _NAME.fullmatch(value):
        raise InvalidArgument(f"generic resource {kind}: {value!r} is neither a count nor a name")
    return GenericResource(kind=kind, value=value)

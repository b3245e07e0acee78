"""How secrets are kept out of what people read: `repr` of values that hold one, and texts that may quote one.

Two rules. A type that holds a secret names the fields in its own `__repr__`, by `shown_without`; whatever prints it (an
exception, a log line, a debugger) then shows the rest. And text for people passes `masked` at the two doors it leaves
by, the command's error line and the daemons' logs: there somebody may have given a token in a name's place. Encrypts
nothing, and is no reason to log a secret: the second rule only catches what slipped through the first. The command
imports this before it knows what to do, so it imports next to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

HIDDEN: Final = "…"
# Of a join token and an API token the first part is public (root digest, id), and tells people which one it was. The
# bounds are generous, so that mistyped ones are masked as well: those are nearly the right ones.
_FORMS: Final = re.compile(
    r"((?:SWMTKN|PSWT)-\d+-[0-9A-Za-z]+-)[0-9A-Za-z]+"
    r"|((?:SWMKEY|SWMBAK)-\d+-)[0-9A-Za-z+/=_]+"
    r"|(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)


def shown_without(value: object, *secret: str) -> str:
    """The `repr` of a struct or dataclass. A secret field that is set is shown as `…`, one that is empty as it is."""
    parts = []
    names: Iterable[str] = getattr(value, "__struct_fields__", ()) or getattr(value, "__dataclass_fields__", ())
    for name in names:
        content = getattr(value, name)
        parts.append(f"{name}={HIDDEN if name in secret and content else repr(content)}")
    return f"{type(value).__name__}({', '.join(parts)})"


def masked(text: str) -> str:
    """The text without the secret part of tokens, unlock keys, backup keys and PEM private keys."""
    return _FORMS.sub(lambda found: f"{next(part for part in found.groups() if part)}{HIDDEN}", text)

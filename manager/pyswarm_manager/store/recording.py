"""Who asked for the change sets that are being proposed.

While a call that may change something is answered, what it proposes carries the caller's record (`asking`); what the
leader's own loops propose carries none. The record travels in a context variable, so that no change can be proposed on
somebody's behalf without it, whichever method proposes it. `access.admission` says who it is; `Store.propose` takes it.

A loop must not be started from within a call: it would go on recording its changes as the caller's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

from msgspec.structs import replace

from pyswarm_common.model.audit import AuditRecord

_asking: Final[ContextVar[AuditRecord | None]] = ContextVar("asking", default=None)
MAX_DETAIL: Final = 200


def asked_by() -> AuditRecord | None:
    """The beginnings of the record of what is proposed now; None if nobody asked for it."""
    return _asking.get()


def begin_call(record: AuditRecord | None) -> None:
    """From here to the end of the present call."""
    _asking.set(record)


@contextlib.contextmanager
def asking(record: AuditRecord | None) -> Iterator[None]:
    """For the block."""
    token = _asking.set(record)
    try:
        yield
    finally:
        _asking.reset(token)


def describe(detail: str) -> None:
    """Say in the record what is done, where objects do not tell. Never with a secret."""
    record = _asking.get()
    if record is not None:
        _asking.set(replace(record, detail=detail[:MAX_DETAIL]))

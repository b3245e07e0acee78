"""The daemons' logs pass `secrecy.masked`, lines and tracebacks alike. Called once, at the start."""

from __future__ import annotations

import logging

from pyswarm_common.secrecy import masked


class _Masking(logging.Formatter):
    """Another formatter's text, masked."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return masked(self._inner.format(record))


def mask_logs() -> None:
    """Everything that this process logs from now on passes `masked`."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Masking(handler.formatter or logging.Formatter()))

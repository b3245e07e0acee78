"""What the daemons' logs may say. Called once, at the start.

Everything passes `secrecy.masked`, lines and tracebacks alike. Of gRPC nothing is said at the level debug: there it
tells of every stream whose two ends do not end in the same moment, with a traceback, as if something had failed.
"""

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


def tame_logs() -> None:
    """For everything that this process logs from now on."""
    logging.getLogger("grpc").setLevel(logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Masking(handler.formatter or logging.Formatter()))

"""What a laboratory can refuse or fail to do; the message is one sentence that says what to do next."""

from __future__ import annotations

from pyswarm_common.errors import PyswarmError


class LabError(PyswarmError):
    """The lab cannot be made, found or changed as asked."""

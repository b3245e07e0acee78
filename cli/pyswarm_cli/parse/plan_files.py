"""Plan files as `--plan --out` writes them. Pure."""

from __future__ import annotations

from google.protobuf import json_format

from pyswarm.v1 import plans_pb2
from pyswarm_common.errors import InvalidArgument

MAX_BYTES = 8 << 20


def parse_plan(data: bytes) -> plans_pb2.Plan:
    """The plan; InvalidArgument for anything else."""
    if len(data) > MAX_BYTES:
        raise InvalidArgument(f"this is no plan: it is larger than {MAX_BYTES} bytes")
    try:
        plan = json_format.Parse(data, plans_pb2.Plan())
    except (json_format.ParseError, UnicodeDecodeError, ValueError, RecursionError):
        raise InvalidArgument("this is no plan: make one with --plan --out FILE") from None
    if not plan.requests:
        raise InvalidArgument("the plan holds no changes: make one with --plan --out FILE")
    return plan

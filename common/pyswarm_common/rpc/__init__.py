"""gRPC at the edge: who calls, whether they may, how much they may ask, and how errors travel.

Every server of pyswarm stands behind the guard, and every client turns statuses back into errors by `error_from_rpc`.
"""

from pyswarm_common.rpc.callers import (
    LOCAL_PEER,
    Caller,
    InProcessContext,
    Peer,
    caller_of_person,
    certificate_of,
    peer_of,
)
from pyswarm_common.rpc.channels import (
    CHANNEL_OPTIONS,
    MAX_MESSAGE_BYTES,
    SERVER_OPTIONS,
    TLS_SERVER_OPTIONS,
    open_channel,
    open_local_channel,
)
from pyswarm_common.rpc.guard import Admission, GuardInterceptor, Table
from pyswarm_common.rpc.guarded import behind
from pyswarm_common.rpc.statuses import error_from_rpc

__all__ = [
    "CHANNEL_OPTIONS",
    "LOCAL_PEER",
    "MAX_MESSAGE_BYTES",
    "SERVER_OPTIONS",
    "TLS_SERVER_OPTIONS",
    "Admission",
    "Caller",
    "GuardInterceptor",
    "InProcessContext",
    "Peer",
    "Table",
    "behind",
    "caller_of_person",
    "certificate_of",
    "error_from_rpc",
    "open_channel",
    "open_local_channel",
    "peer_of",
]

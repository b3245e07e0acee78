"""The networks of one host: overlay over VXLAN, names, virtual addresses, published ports.

`OverlayHost` programs one host from plain values and knows nothing of tasks or Raft.
"""

from .host import OverlayHost
from .types import (
    Attachment,
    EndpointRecord,
    HostPort,
    IngressBackend,
    IngressPort,
    NetworkTable,
    OverlayConfig,
    Sandbox,
    ServiceRecord,
    TableDelta,
)

__all__ = [
    "Attachment",
    "EndpointRecord",
    "HostPort",
    "IngressBackend",
    "IngressPort",
    "NetworkTable",
    "OverlayConfig",
    "OverlayHost",
    "Sandbox",
    "ServiceRecord",
    "TableDelta",
]

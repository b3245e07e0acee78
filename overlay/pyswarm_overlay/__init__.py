"""The networks of one host: overlay over VXLAN, names, virtual addresses, published ports.

`OverlayHost` programs one host from plain values and knows nothing of tasks or Raft. It is imported when it is asked
for: the process that answers names needs none of it, and is to start at once.
"""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from .host import OverlayHost

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


def __getattr__(name: str) -> Any:
    if name == "OverlayHost":
        from .host import OverlayHost  # noqa: PLC0415 - see above

        return OverlayHost
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Containers on one host: images, snapshots, containers, logs.

A library with an asynchronous API of plain values. It knows nothing of clusters: a node's agent uses it, and so may any
other program (see docs/agent-runtime.md).
"""

from typing import TYPE_CHECKING, Any

from pyswarm_runtime.types import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    Descriptor,
    Device,
    ExecOptions,
    ExecResult,
    Healthcheck,
    Image,
    ImageConfig,
    ImageManifest,
    Limits,
    LogRecord,
    Mount,
    Preflight,
    RemovedItem,
    RuntimeConfig,
    Ulimit,
)

if TYPE_CHECKING:
    from pyswarm_runtime.images import ImageStore
    from pyswarm_runtime.runtime import Runtime

__all__ = [
    "ContainerConfig",
    "ContainerState",
    "ContainerStatus",
    "Descriptor",
    "Device",
    "ExecOptions",
    "ExecResult",
    "Healthcheck",
    "Image",
    "ImageConfig",
    "ImageManifest",
    "ImageStore",
    "Limits",
    "LogRecord",
    "Mount",
    "Preflight",
    "RemovedItem",
    "Runtime",
    "RuntimeConfig",
    "Ulimit",
]


def __getattr__(name: str) -> Any:
    """The machinery is imported at its first use: values alone, and the unpacking process, do without it."""
    if name == "Runtime":
        from pyswarm_runtime.runtime import Runtime  # noqa: PLC0415

        return Runtime
    if name == "ImageStore":
        from pyswarm_runtime.images import ImageStore  # noqa: PLC0415

        return ImageStore
    raise AttributeError(name)

"""Containers on one host: images, snapshots, containers, logs.

A library with an asynchronous API of plain values. It knows nothing of clusters: a node's agent uses it, and so may any
other program (see docs/agent-runtime.md).
"""

from pyswarm_runtime.images import ImageStore
from pyswarm_runtime.runtime import Runtime
from pyswarm_runtime.types import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    Descriptor,
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

__all__ = [
    "ContainerConfig",
    "ContainerState",
    "ContainerStatus",
    "Descriptor",
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

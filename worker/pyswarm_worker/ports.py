"""What the agent needs of the runtime and of the overlay, as protocols defined here, by their consumer.

`pyswarm_runtime.Runtime` and `pyswarm_overlay.OverlayHost` fulfil them; the unit tests have small fakes that do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from pyswarm_overlay.types import IngressPort, NetworkTable, Sandbox, TableDelta
from pyswarm_runtime.types import (
    ContainerConfig,
    ContainerState,
    ExecOptions,
    ExecResult,
    Image,
    ImageManifest,
    LogRecord,
    LogStream,
)
from pyswarm_runtime.usage import ContainerUsage


class ImageStore(Protocol):
    """The node's images."""

    async def exists(self, reference: str, /) -> bool: ...

    async def inspect(self, reference: str, /) -> Image: ...

    async def list(self) -> list[Image]: ...

    async def manifest(self, reference: str, /) -> ImageManifest: ...

    async def has_blob(self, digest: str, /) -> bool: ...

    def read_blob(self, digest: str, offset: int = 0, /) -> AsyncIterator[bytes]: ...

    async def write_blob(self, digest: str, size: int, chunks: AsyncIterator[bytes], /) -> None: ...

    async def commit(self, reference: str, manifest_bytes: bytes, /) -> Image: ...


class ContainerRuntime(Protocol):
    """The node's containers."""

    async def create(self, config: ContainerConfig, /) -> str: ...

    async def start(self, container_id: str, /) -> ContainerState: ...

    async def stop(self, container_id: str, grace_s: float, /) -> ContainerState: ...

    async def remove(self, container_id: str, /, force: bool = False) -> None: ...

    async def list(self) -> list[ContainerState]: ...

    async def usage(self, container_ids: Sequence[str], /) -> Mapping[str, ContainerUsage]: ...

    async def exec(self, container_id: str, argv: Sequence[str], /, *, timeout_s: float) -> ExecResult: ...

    def logs(
        self, container_id: str, /, *, follow: bool, tail: int | None, since: float | None
    ) -> AsyncIterator[LogRecord]: ...

    def exits(self) -> AsyncIterator[ContainerState]: ...


class CommandSession(Protocol):
    """A command that runs in a container."""

    def output(self) -> AsyncGenerator[tuple[LogStream, bytes], None]: ...

    async def write(self, data: bytes, /) -> None: ...

    async def close_input(self) -> None: ...

    def resize(self, rows: int, columns: int, /) -> None: ...

    async def wait(self) -> int: ...


class ContainerAccess(Protocol):
    """Into the node's containers."""

    def exec(
        self, container_id: str, argv: Sequence[str], options: ExecOptions, /
    ) -> AbstractAsyncContextManager[CommandSession]: ...

    async def exec_detached(self, container_id: str, argv: Sequence[str], options: ExecOptions, /) -> None: ...

    def read_archive(self, container_id: str, path: str, /) -> AsyncGenerator[bytes, None]: ...

    async def write_archive(self, container_id: str, path: str, chunks: AsyncIterator[bytes], /) -> None: ...


class Overlay(Protocol):
    """The node's networks."""

    def networks(self) -> Sequence[str]: ...

    async def apply_table(self, table: NetworkTable, /) -> None: ...

    async def apply_delta(self, delta: TableDelta, /) -> bool: ...

    async def remove_network(self, network_id: str, /) -> None: ...

    async def attach(self, sandbox: Sandbox, /) -> str: ...

    async def connections(self, sandbox_id: str, /) -> int: ...

    async def detach(self, sandbox_id: str, /) -> None: ...

    async def set_ingress(self, node_addresses: tuple[str, ...], ports: tuple[IngressPort, ...], /) -> None: ...

    async def retain(self, sandbox_ids: Iterable[str], /) -> None: ...

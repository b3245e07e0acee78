"""The manager's gRPC servers: mTLS for other nodes, and a unix socket for this machine's own daemon.

Both serve the same services under the same table of who may call what. Binding fails with the name of what is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.rpc import SERVER_OPTIONS, TLS_SERVER_OPTIONS, GuardInterceptor, behind

_MAX_SOCKET_PATH = 107  # sockaddr_un

Register = Callable[[grpc.aio.Server], None]
"""Adds one service to a server."""


class Services:
    """What every server of this manager serves, and under which names."""

    def __init__(self, guard: GuardInterceptor, names: Sequence[str], registrations: Sequence[Register]) -> None:
        self._guard = guard
        self._names = (*names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        self._registrations = registrations
        self._reflection = reflection.aio.ReflectionServicer(self._names)  # type: ignore[attr-defined]  # likewise
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # missing in the stubs

    async def listen(self, address: str, credentials: grpc.ServerCredentials) -> grpc.aio.Server:
        """Serve by mTLS. Raises FailedPrecondition if the address cannot be had."""
        server = self._new_server(TLS_SERVER_OPTIONS)
        try:
            server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise FailedPrecondition(
                f"cannot listen on {address}: the port is in use or the address is not this machine's; "
                "stop what listens there, or choose another --listen-addr"
            ) from error
        await server.start()
        return server

    async def listen_locally(self, path: Path) -> grpc.aio.Server:
        """Serve on a unix socket that only its owner may use."""
        server = self._new_server(SERVER_OPTIONS)
        _bind_locally(server, path)
        await server.start()
        return server

    async def set_serving(self, is_serving: bool) -> None:
        """What the standard health service says."""
        status = health_pb2.HealthCheckResponse.SERVING if is_serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)

    def _new_server(self, options: Sequence[tuple[str, int]]) -> grpc.aio.Server:
        server = grpc.aio.server(options=options)
        guarded = behind(self._guard, server)
        for register in self._registrations:
            register(guarded)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, guarded)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(self._reflection, guarded)
        return server


def _bind_locally(server: grpc.aio.Server, path: Path) -> None:
    if len(str(path).encode()) > _MAX_SOCKET_PATH:
        raise FailedPrecondition(f"the path of the socket {path} is too long: choose a shorter --run-dir")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise FailedPrecondition(f"cannot listen on {path}: another manager runs here; stop it first") from error
    path.chmod(0o600)

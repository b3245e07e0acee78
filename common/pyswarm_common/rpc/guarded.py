"""Services put on a server behind a guard when they are registered, so that no interceptor runs at each call.

Decides nothing: the guard does. Whatever is registered through it is held to the guard's table, by whichever of gRPC's
two ways it comes. Nothing else may be added to the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import grpc

from pyswarm_common.rpc.guard import GuardInterceptor


def behind(guard: GuardInterceptor, server: grpc.aio.Server) -> grpc.aio.Server:
    """What services are registered with instead of the server itself; of use for nothing else."""
    return cast(grpc.aio.Server, _GuardedServer(server, guard))


class _GuardedServer:
    def __init__(self, server: Any, guard: GuardInterceptor) -> None:
        self._server, self._guard = server, guard

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """The methods of one service by name."""
        guarded = {name: self._guard.known(handler, f"/{service}/{name}") for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, guarded)

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Whoever finds the handler of a method by itself."""
        self._server.add_generic_rpc_handlers(tuple(_Guarded(handler, self._guard) for handler in handlers))


class _Guarded(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic only in the stubs
    def __init__(self, inner: Any, guard: GuardInterceptor) -> None:
        self._inner, self._guard = inner, guard

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler = self._inner.service(handler_call_details)
        return None if handler is None else self._guard.known(handler, str(handler_call_details.method))

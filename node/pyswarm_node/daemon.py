"""One run of the daemon: what is opened in which order, and closed in the reverse.

The socket comes last, when everything can be answered. Ending leaves containers and networks as they are; only the
manager, which cannot do without the daemon's supervision, ends with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack

import grpc

from pyswarm.v1 import localnet_pb2_grpc, node_pb2, node_pb2_grpc, plain_pb2_grpc
from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.random_ids import new_id
from pyswarm_common.rpc import SERVER_OPTIONS, Caller, GuardInterceptor, Table
from pyswarm_runtime import Runtime
from pyswarm_runtime.types import RuntimeConfig

from .daemon_servicer import DaemonServicer
from .forward import FORWARD_TABLE, Forwarder
from .images_servicer import ImagesServicer
from .local_networks import LOCAL_NETWORKS_TABLE, LocalNetworksServicer
from .lock import DirectoryLock
from .membership import Membership
from .notify import notify
from .paths import Options
from .plain_servicer import PLAIN_TABLE, PlainServicer
from .recovery import Recovery

_log = logging.getLogger(__name__)

_STOP_GRACE_S = 1.0
_MAX_SOCKET_PATH = 107  # sockaddr_un

OWN_TABLE: Table = {
    f"/{service.full_name}/{method.name}": frozenset({Caller.LOCAL})
    for service in node_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


async def run_daemon(options: Options, on_stop: Callable[[Callable[[], None]], None]) -> None:
    """Until `on_stop`'s argument is called, or something fails (raises)."""
    async with AsyncExitStack() as stack:
        for directory in dict.fromkeys((options.state_dir, options.run_dir)):
            stack.callback(DirectoryLock(directory).release)
        runtime = await Runtime.open(_runtime_config(options))
        stack.push_async_callback(runtime.close)
        _log.info("%s", runtime.preflight)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        membership = Membership(options, runtime, on_failed=lambda error: _fail(ended, error))
        stack.push_async_callback(membership.close)
        await membership.restore()
        server = await _serve(options, membership, runtime)
        stack.push_async_callback(_stop_serving, options, server)
        on_stop(lambda: None if ended.done() else ended.set_result(None))
        notify("READY=1")
        _log.info("pyswarmd is ready: %s", options.socket)
        await ended
        notify("STOPPING=1")


def _fail(ended: asyncio.Future[None], error: BaseException) -> None:
    if not ended.done():
        ended.set_exception(error)


def _runtime_config(options: Options) -> RuntimeConfig:
    return RuntimeConfig(
        root=options.state_dir / "runtime",
        run_dir=options.run_dir / "runtime",
        oci_runtime=options.oci_runtime,
        cgroup_parent=options.cgroup_parent,
    )


async def _serve(options: Options, membership: Membership, runtime: Runtime) -> grpc.aio.Server:
    path = options.socket
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise FailedPrecondition(f"the path of the socket {path} is too long: choose a shorter --run-dir")
    path.unlink(missing_ok=True)  # a crash left it: the lock says that nobody serves it
    guard = GuardInterceptor({**OWN_TABLE, **PLAIN_TABLE, **LOCAL_NETWORKS_TABLE, **FORWARD_TABLE})
    server = grpc.aio.server(interceptors=[guard], options=SERVER_OPTIONS)
    standing = membership.standing
    recovery = Recovery(options, runtime, standing, membership.joining, membership.standstill)
    node_pb2_grpc.add_DaemonServicer_to_server(DaemonServicer(membership, recovery, runtime), server)
    images = ImagesServicer(runtime.images, standing.images_changed, standing.is_in_cluster)
    node_pb2_grpc.add_ImagesServicer_to_server(images, server)
    plain_pb2_grpc.add_PlainNetworksServicer_to_server(PlainServicer(standing.plain_containers), server)
    networks = LocalNetworksServicer(options.network / "configs", new_id)
    localnet_pb2_grpc.add_LocalNetworksServicer_to_server(networks, server)
    server.add_generic_rpc_handlers((Forwarder(standing.channel, lambda: standing.node_id),))
    server.add_insecure_port(f"unix:{path}")
    path.chmod(0o600)
    await server.start()
    return server


async def _stop_serving(options: Options, server: grpc.aio.Server) -> None:
    options.socket.unlink(missing_ok=True)
    await server.stop(_STOP_GRACE_S)

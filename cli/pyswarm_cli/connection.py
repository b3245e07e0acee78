"""The way to the daemon (one unix socket) or to a manager elsewhere (mTLS).

Blocking calls with a deadline, refusals as `FromDaemon`. Imports gRPC, so it is imported by commands and never by the
command table.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click
import grpc

from pyswarm_cli.failures import FromDaemon
from pyswarm_cli.patience import told
from pyswarm_cli.remote import is_remote, open_remote
from pyswarm_common import errors, lost_calls

if TYPE_CHECKING:
    from pyswarm.v1 import (
        access_pb2_grpc,
        backup_pb2_grpc,
        control_pb2_grpc,
        exec_pb2_grpc,
        health_pb2_grpc,
        jobs_pb2_grpc,
        localnet_pb2_grpc,
        logs_pb2_grpc,
        network_checks_pb2_grpc,
        node_pb2_grpc,
        operator_pb2_grpc,
        plain_pb2_grpc,
        plans_pb2_grpc,
        scheduling_pb2_grpc,
        secrets_pb2_grpc,
        security_pb2_grpc,
        watch_pb2_grpc,
    )

T = TypeVar("T")
CALL_TIMEOUT_S = 30.0
_WAITING = "Still waiting for the daemon, {:.0f} s at most (is it stopped or very busy, or is there no leader?) ..."
_OPTIONS = (
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.enable_http_proxy", 0),
)
_BY_CODE = {grpc.StatusCode[name]: meaning for meaning, name in errors.STATUS_NAMES.items()}


class Connection:
    """The daemon's services. Stubs are made, and their modules imported, when they are first used."""

    def __init__(self, host: str, tls_dir: str = "") -> None:
        self.host = host
        self.is_remote = is_remote(host)
        if self.is_remote:
            self._channel = open_remote(host, tls_dir, _OPTIONS)
            return
        path = socket_path(host)
        check_reachable(path, host)
        self._channel = grpc.insecure_channel(f"unix:{path}", options=_OPTIONS)

    @property
    def own_node(self) -> str:
        """How the node we ask on is called there: pyswarmd knows "self", a manager far away says its id."""
        if not self.is_remote:
            return "self"
        from pyswarm.v1 import health_pb2  # noqa: PLC0415

        return str(call(self.health.GetHealth, health_pb2.GetHealthRequest()).node_id)

    @property
    def access(self) -> access_pb2_grpc.AccessStub:
        """People: their tokens and certificates, and what they changed."""
        from pyswarm.v1 import access_pb2_grpc  # noqa: PLC0415

        return access_pb2_grpc.AccessStub(self._channel)

    @property
    def control(self) -> control_pb2_grpc.ControlStub:
        """The cluster's objects."""
        from pyswarm.v1 import control_pb2_grpc  # noqa: PLC0415 - a command pays only for what it uses

        return control_pb2_grpc.ControlStub(self._channel)

    @property
    def jobs(self) -> jobs_pb2_grpc.JobsStub:
        """Runs of jobs."""
        from pyswarm.v1 import jobs_pb2_grpc  # noqa: PLC0415

        return jobs_pb2_grpc.JobsStub(self._channel)

    @property
    def plain(self) -> plain_pb2_grpc.PlainNetworksStub:
        """Networks of this machine's plain containers. Raises a refusal where another machine was named."""
        from pyswarm.v1 import plain_pb2_grpc  # noqa: PLC0415

        if self.is_remote:
            raise errors.Unsupported("a plain container is connected on its own node: leave -H out there")
        return plain_pb2_grpc.PlainNetworksStub(self._channel)

    @property
    def scheduling(self) -> scheduling_pb2_grpc.SchedulingStub:
        """Why tasks are where they are, and moving them."""
        from pyswarm.v1 import scheduling_pb2_grpc  # noqa: PLC0415

        return scheduling_pb2_grpc.SchedulingStub(self._channel)

    @property
    def plans(self) -> plans_pb2_grpc.PlansStub:
        """What changes and losses would do."""
        from pyswarm.v1 import plans_pb2_grpc  # noqa: PLC0415

        return plans_pb2_grpc.PlansStub(self._channel)

    @property
    def watch(self) -> watch_pb2_grpc.WatchStub:
        """Changes of the cluster's objects."""
        from pyswarm.v1 import watch_pb2_grpc  # noqa: PLC0415

        return watch_pb2_grpc.WatchStub(self._channel)

    @property
    def logs(self) -> logs_pb2_grpc.LogsStub:
        """What containers write."""
        from pyswarm.v1 import logs_pb2_grpc  # noqa: PLC0415

        return logs_pb2_grpc.LogsStub(self._channel)

    @property
    def exec(self) -> exec_pb2_grpc.ExecStub:
        """Into the containers of tasks."""
        from pyswarm.v1 import exec_pb2_grpc  # noqa: PLC0415

        return exec_pb2_grpc.ExecStub(self._channel)

    @property
    def network_checks(self) -> network_checks_pb2_grpc.NetworkChecksStub:
        """Whether the networks of nodes are as they should be."""
        from pyswarm.v1 import network_checks_pb2_grpc  # noqa: PLC0415

        return network_checks_pb2_grpc.NetworkChecksStub(self._channel)

    @property
    def health(self) -> health_pb2_grpc.HealthStub:
        """How this machine's manager is."""
        from pyswarm.v1 import health_pb2_grpc  # noqa: PLC0415

        return health_pb2_grpc.HealthStub(self._channel)

    @property
    def backup(self) -> backup_pb2_grpc.BackupStub:
        """Backups of the cluster's state."""
        from pyswarm.v1 import backup_pb2_grpc  # noqa: PLC0415

        return backup_pb2_grpc.BackupStub(self._channel)

    @property
    def operator(self) -> operator_pb2_grpc.OperatorStub:
        """The managers, as who operates them sees them."""
        from pyswarm.v1 import operator_pb2_grpc  # noqa: PLC0415

        return operator_pb2_grpc.OperatorStub(self._channel)

    @property
    def secrets(self) -> secrets_pb2_grpc.SecretsStub:
        """Secrets and configs."""
        from pyswarm.v1 import secrets_pb2_grpc  # noqa: PLC0415

        return secrets_pb2_grpc.SecretsStub(self._channel)

    @property
    def security(self) -> security_pb2_grpc.SecurityStub:
        """Join tokens with limits, and the root certificate."""
        from pyswarm.v1 import security_pb2_grpc  # noqa: PLC0415

        return security_pb2_grpc.SecurityStub(self._channel)

    @property
    def daemon(self) -> node_pb2_grpc.DaemonStub:
        """This machine's part in a cluster."""
        self._require_local()
        from pyswarm.v1 import node_pb2_grpc  # noqa: PLC0415

        return node_pb2_grpc.DaemonStub(self._channel)

    @property
    def local_networks(self) -> localnet_pb2_grpc.LocalNetworksStub:
        """This machine's own networks."""
        self._require_local()
        from pyswarm.v1 import localnet_pb2_grpc  # noqa: PLC0415

        return localnet_pb2_grpc.LocalNetworksStub(self._channel)

    @property
    def images(self) -> node_pb2_grpc.ImagesStub:
        """This machine's images."""
        self._require_local()
        from pyswarm.v1 import node_pb2_grpc  # noqa: PLC0415

        return node_pb2_grpc.ImagesStub(self._channel)

    def _require_local(self) -> None:
        if self.is_remote:
            raise errors.FailedPrecondition(
                "this command is about one machine: run it there, on the local socket of its daemon (without -H tcp://…)"
            )

    def close(self) -> None:
        """Hang up."""
        self._channel.close()


def connect(ctx: click.Context) -> Connection:
    """The connection of a command; it is closed when the command ends."""
    root = ctx.find_root()
    connection = Connection(root.obj, root.params.get("tls_dir") or "")
    ctx.call_on_close(connection.close)
    return connection


def call(method: Callable[..., T], request: Any, timeout_s: float = CALL_TIMEOUT_S, hint: str = "") -> T:
    """One answer to one request (or to a stream of them). Raises FromDaemon. Whoever waits longer than a moment is told
    so: `hint` says for what."""
    try:
        with told(hint or _WAITING.format(timeout_s)):
            return method(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise FromDaemon(refusal(error, timeout_s), error.code().name) from None


def stream(method: Callable[..., Any], request: Any) -> Any:
    """A stream of answers without a deadline: iterate with `answers`, end it with `.cancel()`."""
    return method(request)


def answers(responses: Any) -> Iterator[Any]:
    """The messages of a stream. Raises FromDaemon."""
    try:
        yield from responses
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.CANCELLED:
            raise FromDaemon(refusal(error), error.code().name) from None


def refusal(error: Any, timeout_s: float = CALL_TIMEOUT_S) -> errors.PyswarmError:
    """What a status means, by the same table that the servers use."""
    code, details = error.code(), error.details() or "no answer"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.Unavailable(
            f"no answer within {timeout_s:.0f} s: is the daemon stopped, or is there no leader? See `pyswarm info` on "
            "a manager"
        )
    if lost_calls.is_lost(error):
        return errors.Unavailable(lost_calls.told("the daemon"))
    if lost_calls.is_unsent(error):
        return errors.Unavailable("it cannot be reached, and nothing was done: is it running, and the address right?")
    meaning = _BY_CODE.get(code)
    if meaning is errors.InvalidArgument:
        return errors.InvalidArgument(_with_violations(details, error))
    return (meaning or errors.PyswarmError)(details)


def _with_violations(details: str, error: Any) -> str:
    """Every wrong field, when the message does not name it already."""
    from google.rpc import error_details_pb2, status_pb2  # noqa: PLC0415 - needed for this refusal only

    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    for detail in status.details:
        request = error_details_pb2.BadRequest()
        if detail.Unpack(request):
            found = [item for item in request.field_violations if item.description not in details]
            details = "; ".join([details, *(f"{item.field}: {item.description}" for item in found)])
    return details


def socket_path(host: str) -> str:
    """The path of `unix:///run/…` or of a bare path."""
    path = host.removeprefix("unix://")
    if not path.startswith("/"):
        raise errors.InvalidArgument(f'"{host}" is not a socket: write unix:///path/to/pyswarm.sock')
    return path


def check_reachable(path: str, host: str) -> None:
    """Fail at once and in plain words where gRPC would try for a while."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except PermissionError:
            who = "root" if os.geteuid() else "the owner of the socket"
            raise errors.Forbidden(
                f"permission denied while trying to connect to the pyswarm daemon socket at {host}: run this as {who}"
            ) from None
        except OSError:
            raise errors.Unavailable(
                f"Cannot connect to the pyswarm daemon at unix://{path}. Is the pyswarm daemon running?"
            ) from None

"""A server that ends in the middle of a call, as clients of both of gRPC's Python libraries see it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from pyswarm.v1 import control_pb2, control_pb2_grpc
from pyswarm_cli.connection import refusal
from pyswarm_common import errors
from pyswarm_common.lost_calls import is_lost, told
from pyswarm_common.rpc import open_local_channel

_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # HTTP/2: the server's greeting
_HEADERS = 1


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """A socket whose server greets, reads until a call has come, and dies."""
    name = f"{tmp_path}/d.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(name)
        listener.listen()
        thread = threading.Thread(target=_serve_and_die, args=(listener,))
        thread.start()
        yield name
        thread.join()


def _serve_and_die(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(_SETTINGS)
        seen = b""
        while b"GetNode" not in seen:
            read = connection.recv(65536)
            assert read, "the client goes first"
            seen += read


def test_the_command_line_says_that_nobody_knows_what_was_done(path: str) -> None:
    with grpc.insecure_channel(f"unix:{path}") as channel:
        with pytest.raises(grpc.RpcError) as lost:
            control_pb2_grpc.ControlStub(channel).GetNode(control_pb2.GetNodeRequest(), timeout=30)
        meant = refusal(lost.value)
    assert (type(meant), str(meant)) == (errors.Unavailable, told("the daemon"))


def test_a_call_that_was_never_sent_changed_nothing(tmp_path: Path) -> None:
    with grpc.insecure_channel(f"unix:{tmp_path}/nobody.sock") as channel:
        with pytest.raises(grpc.RpcError) as unsent:
            control_pb2_grpc.ControlStub(channel).GetNode(control_pb2.GetNodeRequest(), timeout=30)
        meant = refusal(unsent.value)
    assert isinstance(meant, errors.Unavailable)
    assert "nothing was done" in str(meant)


async def test_so_does_what_passes_calls_on(path: str) -> None:
    async with open_local_channel(path) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as lost:
            await control_pb2_grpc.ControlStub(channel).GetNode(control_pb2.GetNodeRequest(), timeout=30)
    assert is_lost(lost.value)

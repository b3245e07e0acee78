"""TLS 1.3 and nothing older: asked of real servers with OpenSSL, and of our clients by a server that knows only 1.2."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ca_makers import identity

from pyswarm_common.identity import NodeIdentity, RootAuthority
from pyswarm_manager.ca.https import load_certificate

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
ROOT = RootAuthority.create("c" * 25, time.time())
SERVER = """
import asyncio, pathlib, sys
import {package}  # what every program of ours imports first of all
import grpc
from pyswarm_common.identity import NodeIdentity, ServedIdentity
from pyswarm_common.rpc import TLS_SERVER_OPTIONS

async def main():
    identity = NodeIdentity.load(pathlib.Path(sys.argv[1]))
    server = grpc.aio.server(options=TLS_SERVER_OPTIONS)
    print(server.add_secure_port("127.0.0.1:0", ServedIdentity(identity).credentials()), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)

asyncio.run(main())
"""
CLIENT = """
import asyncio, json, pathlib, sys
import pyswarm_node
import grpc
from pyswarm_common.identity import NodeIdentity
from pyswarm_common.rpc import open_channel

async def main():
    identity = NodeIdentity.load(pathlib.Path(sys.argv[1]))
    async with open_channel("127.0.0.1:" + sys.argv[2], identity, "swarm-manager") as channel:
        try:
            await channel.unary_unary("/none/none")(b"", timeout=10)
        except grpc.aio.AioRpcError as error:
            print(json.dumps([error.code().name, error.details()]))

asyncio.run(main())
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    identity(ROOT, ROOT.cert_pem).save(tmp_path)
    return tmp_path


@pytest.fixture(params=["pyswarm_manager", "pyswarm_node"])
def grpc_port(request: pytest.FixtureRequest, directory: Path) -> Iterator[int]:
    """Of a server in a process that begins as ours do."""
    source = SERVER.format(package=request.param)
    server = subprocess.Popen(
        [sys.executable, "-c", source, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.communicate(input="", timeout=20)


def handshake(port: int, directory: Path, version: str) -> bool:
    """Whether OpenSSL comes to an agreement in that version, with a certificate of ours."""
    argv = ["openssl", "s_client", version, "-alpn", "h2", "-connect", f"127.0.0.1:{port}"]
    files = ["-cert", "node.crt", "-key", "node.key", "-CAfile", "root-ca.crt"]
    done = subprocess.run(
        [*argv, *files], cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False
    )
    return b"Cipher is (NONE)" not in done.stdout and done.returncode == 0


def test_a_grpc_server(grpc_port: int, directory: Path) -> None:
    assert handshake(grpc_port, directory, "-tls1_3")
    assert not handshake(grpc_port, directory, "-tls1_2")


@pytest.mark.parametrize(("version", "agrees"), [(ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1_2, False)])
def test_a_grpc_client(directory: Path, version: ssl.TLSVersion, agrees: bool) -> None:
    """The server speaks one version only; the client comes to an agreement with it, or does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    load_certificate(context, _load(directory))
    agreed: list[bool] = []

    def serve(listener: socket.socket) -> None:
        listener.settimeout(20)
        connection, _ = listener.accept()
        try:
            with context.wrap_socket(connection, server_side=True):
                agreed.append(True)
        except (ssl.SSLError, OSError):
            agreed.append(False)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        port = str(listener.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, str(directory), port], capture_output=True, text=True, timeout=30, check=True
        )
        thread.join(20)
    assert agreed == [agrees]
    assert json.loads(done.stdout)[0] == "UNAVAILABLE"


def _load(directory: Path) -> NodeIdentity:
    loaded = NodeIdentity.load(directory)
    assert loaded is not None
    return loaded

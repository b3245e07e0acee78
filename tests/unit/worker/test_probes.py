"""Probes reach into another network namespace and nowhere else; what a server answers decides."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pyswarm_common.probe_targets import HttpTarget, TcpTarget
from pyswarm_worker.probes import Prober

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "busybox", "ip"))),
        reason="needs root, unshare, ip and busybox",
    ),
]


@pytest.fixture
def web_pid(tmp_path: Path) -> Iterator[int]:
    """A web server that listens on port 8080 of a namespace of its own."""
    (tmp_path / "index.html").write_text("hello")
    script = "ip link set lo up && echo up && exec busybox httpd -f -p 8080 -h $0"
    command = ["unshare", "--net", "sh", "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        while not _listens(server.pid):
            assert server.poll() is None
        yield server.pid
        server.kill()


def _listens(pid: int) -> bool:
    """8080 is 1F90, and 0A is LISTEN."""
    texts = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    lines = [line.split() for text in texts for line in text.splitlines()]
    return any(fields[1].endswith(":1F90") and fields[3] == "0A" for fields in lines)


async def test_a_server_in_a_namespace_of_its_own(web_pid: int) -> None:
    prober = Prober()
    assert await prober.ask(HttpTarget("", 8080, "/index.html"), web_pid, "", 10) == (True, "HTTP 200 OK")
    assert await prober.ask(TcpTarget("", 8080), web_pid, "127.0.0.1", 10) == (True, "")


async def test_what_is_not_found_or_not_there_is_unhealthy(web_pid: int) -> None:
    prober = Prober()
    assert await prober.ask(HttpTarget("", 8080, "/nowhere"), web_pid, "", 10) == (False, "HTTP 404 Not Found")
    is_healthy, reason = await prober.ask(TcpTarget("", 8081), web_pid, "", 10)
    assert not is_healthy
    assert reason.startswith("127.0.0.1:8081: ")
    assert (await prober.ask(TcpTarget("", 8080), 2**22 + 1, "", 10))[0] is False  # no such process


async def test_the_hosts_own_namespace_has_no_such_server(web_pid: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        prober = Prober()
        assert (await prober.ask(TcpTarget("", port), os.getpid(), "", 10))[0]
        assert not (await prober.ask(TcpTarget("", port), web_pid, "", 10))[0]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-x\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 302 Found\r\n", "HTTP 302 Found"),
        (b"HTTP/1.1 500\r\n", "HTTP 500"),
        (b"", "the answer is not HTTP"),
    ],
    ids=["ssh", "redirect", "error", "nothing"],
)
async def test_what_servers_say(answer: bytes, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_answer, args=(listener, answer), daemon=True).start()
        target = HttpTarget("", listener.getsockname()[1], "/")
        assert await Prober().ask(target, os.getpid(), "", 10) == (reason == "HTTP 302 Found", reason)


async def test_a_line_without_an_end_and_a_server_that_says_nothing() -> None:
    for answer, part in ((b"x" * 100_000, "127.0.0.1"), (None, "exceeded timeout")):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=_answer, args=(listener, answer), daemon=True).start()
            target = HttpTarget("", listener.getsockname()[1], "/")
            is_healthy, reason = await Prober().ask(target, os.getpid(), "", 0.3 if answer is None else 10)
            assert not is_healthy
            assert part in reason


async def test_tls_with_a_certificate_for_other_names(tmp_path: Path) -> None:
    _write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as plain, context.wrap_socket(plain, server_side=True) as listener:
        threading.Thread(target=_answer, args=(listener, b"HTTP/1.1 204 No Content\r\n\r\n"), daemon=True).start()
        target = HttpTarget("", listener.getsockname()[1], "/", is_tls=True)
        assert await Prober().ask(target, os.getpid(), "", 10) == (True, "HTTP 204 No Content")


def _answer(listener: socket.socket, answer: bytes | None) -> None:
    """Once. None: hold the line until the other side hangs up."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        if answer is None:
            connection.recv(1)
        else:
            connection.sendall(answer)


def _write_certificate(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "elsewhere.test")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    )
    certificate = builder.sign(key, hashes.SHA256())
    (directory / "certificate").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (directory / "key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))

"""Tokens, client certificates, managers elsewhere, events and the audit log: what is sent, and what is shown."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import ssl
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from cli_runner import Done, Run, run_cli
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.v1 import (
    access_pb2,
    access_pb2_grpc,
    control_pb2,
    control_pb2_grpc,
    health_pb2,
    health_pb2_grpc,
    types_pb2,
    watch_pb2,
    watch_pb2_grpc,
)
from pyswarm_cli.parse.moments import lifetime_s, moment
from pyswarm_cli.remote import read_address
from pyswarm_cli.secret_lines import read_api_token
from pyswarm_common import errors
from pyswarm_common.codec import set_timestamp
from pyswarm_common.https_door import refusal
from pyswarm_common.identity import RootAuthority, generate_key, key_to_pem, make_csr
from pyswarm_common.identity.people import person_subject
from pyswarm_common.model import NodeRole
from pyswarm_common.model.states import PersonRole

DAY_S = 86_400.0


class FakeManager(
    access_pb2_grpc.AccessServicer,
    control_pb2_grpc.ControlServicer,
    health_pb2_grpc.HealthServicer,
    watch_pb2_grpc.WatchServicer,
):
    """Answers what the commands ask, and keeps what they asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.records: list[Any] = []
        self.events: list[Any] = []

    def CreateToken(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return access_pb2.CreateTokenResponse(token="PSWT-1-id-secret")

    def ListTokens(self, request: Any, context: Any) -> Any:
        made = access_pb2.Credential(id="t1", name="ci", role=access_pb2.PERSON_ROLE_OPERATOR, created_by="local root")
        set_timestamp(made.created_at, time.time() - 120)
        set_timestamp(made.expires_at, time.time() - 60)
        return access_pb2.ListTokensResponse(credentials=[made])

    def RemoveToken(self, request: Any, context: Any) -> Any:
        if request.token != "ci":
            context.abort(grpc.StatusCode.NOT_FOUND, f"token {request.token} not found")
        return access_pb2.RemoveTokenResponse(id="t1")

    def CreateClientCertificate(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return access_pb2.CreateClientCertificateResponse(
            credential=access_pb2.Credential(id="c1"),
            certificate=b"cert",
            root_ca_cert=b"root",
            manager_addresses=["10.0.0.1:2377"],
        )

    def RemoveClientCertificate(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return access_pb2.RemoveClientCertificateResponse(id=request.certificate)

    def ListAuditRecords(self, request: Any, context: Any) -> Any:
        copy = access_pb2.ListAuditRecordsRequest()
        copy.CopyFrom(request)
        self.asked.append(copy)
        found = [record for record in self.records if record.index > request.after_index]
        return access_pb2.ListAuditRecordsResponse(records=found[:1], more=len(found) > 1)

    def WatchAuditRecords(self, request: Any, context: Any) -> Iterator[Any]:
        yield access_pb2.WatchAuditRecordsResponse()
        yield access_pb2.WatchAuditRecordsResponse(records=[access_pb2.AuditRecord(index=request.after_index + 1)])

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        self.asked.append(request)
        yield watch_pb2.WatchResponse(version=1, events=self.events)

    def GetHealth(self, request: Any, context: Any) -> Any:
        return health_pb2.GetHealthResponse(node_id="n1")

    def GetNode(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return control_pb2.GetNodeResponse(node=types_pb2.Node(id="n1"))

    def GetCluster(self, request: Any, context: Any) -> Any:
        return control_pb2.GetClusterResponse(cluster=types_pb2.Cluster(id="c"))


def serve(fake: FakeManager, bind: Callable[[grpc.Server], Any]) -> Iterator[Any]:
    server = grpc.server(ThreadPoolExecutor(4))
    access_pb2_grpc.add_AccessServicer_to_server(fake, server)
    control_pb2_grpc.add_ControlServicer_to_server(fake, server)
    health_pb2_grpc.add_HealthServicer_to_server(fake, server)
    watch_pb2_grpc.add_WatchServicer_to_server(fake, server)
    bound = bind(server)
    server.start()
    yield bound
    server.stop(None).wait()


@pytest.fixture
def manager() -> FakeManager:
    return FakeManager()


@pytest.fixture
def address(manager: FakeManager, tmp_path: Path) -> Iterator[str]:
    def bind(server: grpc.Server) -> str:
        server.add_insecure_port(f"unix:{tmp_path}/d.sock")
        return f"unix://{tmp_path}/d.sock"

    yield from serve(manager, bind)


@pytest.fixture
def invoke(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ("PYSWARM_HOST", "PYSWARM_TLS_DIR"):
        monkeypatch.delenv(name, raising=False)

    def call(*argv: str) -> Done:
        return run_cli(capfd, *argv)

    return call


@pytest.fixture
def run(invoke: Run, address: str) -> Run:
    return lambda *argv: invoke("-H", address, *argv)


# ---------------------------------------------------------------- tokens and certificates


def test_a_token_is_printed_alone_so_that_it_can_be_piped(manager: FakeManager, run: Run) -> None:
    done = run("token", "create", "--role", "operator", "--name", "ci", "--expires", "30d")
    assert (done.code, done.out) == (0, "PSWT-1-id-secret\n")
    (asked,) = manager.asked
    assert (asked.name, asked.role, asked.lifetime_s) == ("ci", access_pb2.PERSON_ROLE_OPERATOR, 30 * DAY_S)


def test_tokens_are_listed(run: Run) -> None:
    heading, line = run("token", "ls").out.splitlines()
    assert heading.split() == ["ID", "NAME", "ROLE", "CREATED", "BY", "CREATED", "EXPIRES"]
    assert line.split()[:3] == ["t1", "ci", "operator"]
    assert line.endswith("expired")
    assert run("token", "ls", "-q").out == "t1\n"
    assert json.loads(run("token", "ls", "--format", "json").out)["Role"] == "operator"


def test_removing_tokens_goes_on_after_one_that_is_not_there(run: Run) -> None:
    done = run("token", "rm", "nobody", "ci")
    assert (done.code, done.out) == (1, "t1\n")
    assert "token nobody not found" in done.err


def test_a_certificates_key_never_leaves_this_machine(manager: FakeManager, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "alice"
    done = run("client-cert", "create", "--role", "viewer", "--name", "alice", "-o", str(target))
    assert (done.code, done.out) == (0, "c1\n")
    assert (target / "cert.pem").read_bytes() == b"cert"
    assert (target / "ca.pem").read_bytes() == b"root"
    key = (target / "key.pem").read_bytes()
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert stat.S_IMODE((target / "key.pem").stat().st_mode) == 0o600
    assert key not in manager.asked[0].SerializeToString()
    again = run("client-cert", "create", "--role", "viewer", "--name", "alice", "-o", str(target))
    assert again.code == 1
    assert "choose another directory" in again.err
    assert len(manager.asked) == 1


def test_a_certificate_that_cannot_be_written_is_removed_again(manager: FakeManager, run: Run, tmp_path: Path) -> None:
    (tmp_path / "alice" / "ca.pem").parent.mkdir()
    (tmp_path / "alice" / "ca.pem").symlink_to(tmp_path / "nowhere" / "ca.pem")  # passes for absent, cannot be made
    done = run("client-cert", "create", "--role", "viewer", "--name", "alice", "-o", str(tmp_path / "alice"))
    assert done.code == 1
    assert done.err == f"File exists: {tmp_path / 'alice'}\n"
    assert manager.asked[-1] == access_pb2.RemoveClientCertificateRequest(certificate="c1")
    assert [path.name for path in (tmp_path / "alice").iterdir()] == ["ca.pem"]


@pytest.mark.parametrize("argv", [["--name", "x"], ["--role", "viewer"], ["--role", "king", "--name", "x"]])
def test_what_a_token_needs(run: Run, argv: list[str]) -> None:
    assert run("token", "create", *argv).code == 125


# ---------------------------------------------------------------- a manager elsewhere


@pytest.fixture
def tls_dir(tmp_path: Path) -> Path:
    """A person's certificate, and beside it what the manager serves with."""
    root, directory = RootAuthority.create("c" * 25, time.time()), tmp_path / "tls"
    directory.mkdir()
    subject = person_subject(PersonRole.VIEWER, "alice", "c" * 25, "i" * 25)
    key, server_key = generate_key(), generate_key()
    node = {"node_id": "n1", "cluster_id": "c" * 25, "role": NodeRole.MANAGER}
    (directory / "ca.pem").write_bytes(root.cert_pem)
    (directory / "key.pem").write_bytes(key_to_pem(key))
    (directory / "cert.pem").write_bytes(root.issue_person(make_csr(key), subject, now=time.time(), lifetime_s=600.0))
    (directory / "server.key").write_bytes(key_to_pem(server_key))
    (directory / "server.crt").write_bytes(
        root.issue(make_csr(server_key), now=time.time(), lifetime_s=600.0, **node)  # type: ignore[arg-type]
    )
    return directory


@pytest.fixture
def remote(manager: FakeManager, tls_dir: Path) -> Iterator[str]:
    def bind(server: grpc.Server) -> str:
        pair = ((tls_dir / "server.key").read_bytes(), (tls_dir / "server.crt").read_bytes())
        credentials = grpc.ssl_server_credentials([pair], (tls_dir / "ca.pem").read_bytes(), True)
        return f"tcp://127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"

    yield from serve(manager, bind)


def test_commands_run_against_a_manager_elsewhere(
    manager: FakeManager, invoke: Run, remote: str, tls_dir: Path
) -> None:
    done = invoke("-H", remote, "--tls-dir", str(tls_dir), "node", "inspect", "self", "--format", "{{.ID}}")
    assert (done.code, done.out) == (0, "n1\n")
    assert manager.asked[-1].node == "n1"


@pytest.mark.parametrize(
    "argv", [["info"], ["leave"], ["join", "--token", "t", "h"], ["images"], ["image", "rm", "x"], ["init"]]
)
def test_what_is_about_one_machine_needs_its_socket(invoke: Run, remote: str, tls_dir: Path, argv: list[str]) -> None:
    done = invoke("-H", remote, "--tls-dir", str(tls_dir), *argv)
    assert done.code == 1
    assert "local socket" in done.err


def test_who_may_not_see_join_tokens_is_told(invoke: Run, remote: str, tls_dir: Path) -> None:
    done = invoke("-H", remote, "--tls-dir", str(tls_dir), "join-token", "worker")
    assert (done.code, done.err) == (1, "only an admin may see join tokens\n")


def test_a_missing_certificate_and_a_silent_address_are_said(invoke: Run, tls_dir: Path, tmp_path: Path) -> None:
    done = invoke("-H", "tcp://127.0.0.1:1", "--tls-dir", str(tmp_path / "none"), "node", "ls")
    assert done.code == 1
    assert "pyswarm client-cert create" in done.err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = invoke("-H", f"tcp://127.0.0.1:{port}", "--tls-dir", str(tls_dir), "node", "ls")
    assert done.code == 1
    assert "Cannot connect to a pyswarm manager" in done.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://10.0.0.1", ("10.0.0.1", 2377)),
        ("tcp://m1.example:12", ("m1.example", 12)),
        ("tcp://[::1]:9", ("::1", 9)),
    ],
)
def test_addresses_of_managers(text: str, expected: tuple[str, int]) -> None:
    assert read_address(text) == expected


@pytest.mark.parametrize("text", ["tcp://", "tcp://a:0", "tcp://a:65536", "tcp://a:x", "tcp://a/b", "tcp://::1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        read_address(text)


# ---------------------------------------------------------------- a token for a certificate


def test_a_token_is_the_first_line_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(content: bytes) -> str:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return read_api_token("-")

    (tmp_path / "token").write_text("PSWT-1-a-b\n")
    assert read_api_token(str(tmp_path / "token")) == "PSWT-1-a-b"
    assert given(b" PSWT-1-a-b \nmore") == "PSWT-1-a-b"
    for wrong in (b"", b"two words", b"\xff", b"\nb"):
        with pytest.raises(errors.InvalidArgument, match="the first line of standard input is no API token"):
            given(wrong)


@settings(max_examples=200, deadline=None)
@given(st.integers(100, 599), st.binary(max_size=100))
def test_any_answer_is_a_refusal_in_a_sentence(status: int, body: bytes) -> None:
    assert str(refusal(status, body, "192.0.2.1:2378"))


def test_a_managers_refusal_keeps_its_meaning() -> None:
    body = json.dumps({"code": "unauthenticated", "message": "no such token"}).encode()
    assert isinstance(refusal(401, body, "192.0.2.1:2378"), errors.Unauthenticated)


def test_the_token_is_sent_to_nobody_who_does_not_prove_to_be_a_manager(invoke: Run, tls_dir: Path) -> None:
    """Here a person, whose certificate is of the same root."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_dir / "cert.pem", tls_dir / "key.pem")
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_one() -> None:
            plain, _ = listener.accept()
            with plain, contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as tls:
                seen.append(tls.recv(1000))

        impostor = threading.Thread(target=serve_one)
        impostor.start()
        (tls_dir / "token").write_text("PSWT-1-a-b")
        argv = ["--ca", str(tls_dir / "ca.pem"), "--token-file", str(tls_dir / "token"), "-o", str(tls_dir / "new")]
        done = invoke("token", "exchange", *argv, f"127.0.0.1:{listener.getsockname()[1] - 1}")
        impostor.join(10.0)
    assert done.code == 1
    assert "does not prove to be one" in done.err
    assert not any(seen)
    assert not (tls_dir / "new").exists()


# ---------------------------------------------------------------- events


def record(index: int, **fields: Any) -> Any:
    made = access_pb2.AuditRecord(
        index=index,
        actor_kind=access_pb2.AuditRecord.ACTOR_KIND_CERTIFICATE,
        actor="bob",
        role="operator",
        source="10.0.0.9",
        method="Control/CreateNetwork",
        **fields,
    )
    set_timestamp(made.time, 1_700_000_000.5)
    made.targets.add(kind="network", id="nid", name="net\x1b", action="create")
    return made


def test_the_audit_log_page_by_page(manager: FakeManager, run: Run) -> None:
    manager.records = [record(7), record(9, detail="and more")]
    lines = run("events", "--audit", "--filter", "actor=bob", "--filter", "type=network", "--since", "1h").out
    who = "certificate bob (operator, 10.0.0.9) Control/CreateNetwork"
    assert lines.splitlines() == [
        f"2023-11-14T22:13:20.500000Z 7 {who}: create network net ",
        f"2023-11-14T22:13:20.500000Z 9 {who}: create network net , and more",
    ]
    first, second = manager.asked
    assert (list(first.filter.actors), list(first.filter.kinds)) == (["bob"], ["network"])
    assert abs(first.filter.since.seconds - (time.time() - 3600)) < 60
    assert second.after_index == 7
    shown = json.loads(run("events", "--audit", "--format", "json").out.splitlines()[0])
    assert shown["Targets"] == [{"Type": "network", "ID": "nid", "Name": "net\x1b", "Action": "create"}]
    assert run("events", "--audit", "--format", "{{.Index}} {{.Actor}}").out == "7 bob\n9 bob\n"


def test_following_the_audit_log(manager: FakeManager, run: Run) -> None:
    manager.records = [record(7)]
    assert run("events", "--audit", "--follow", "--format", "{{.Index}}").out == "7\n8\n"


@pytest.mark.parametrize("argv", [["--follow"], ["--filter", "type=nothing"], ["--filter", "actor=bob"]])
def test_what_events_do_not_know(run: Run, argv: list[str]) -> None:
    assert run("events", *argv).code == 1


# ---------------------------------------------------------------- moments


@pytest.mark.parametrize(("text", "expected"), [("90d", 90 * DAY_S), ("1d12h", 1.5 * DAY_S), ("10m", 600.0)])
def test_lifetimes(text: str, expected: float) -> None:
    assert lifetime_s(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", 1_000_000 - 600),
        ("7d", 1_000_000 - 7 * DAY_S),
        ("12.5", 12.5),
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T01:01:00+01:00", 60.0),
    ],
)
def test_moments(text: str, expected: float) -> None:
    assert moment(text, 1_000_000.0) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30))
def test_any_moment_is_read_or_refused(text: str) -> None:
    for read in (lifetime_s, lambda value: moment(value, 1e9)):
        try:
            assert read(text) >= 0.0
        except errors.InvalidArgument:
            continue

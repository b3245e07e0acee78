"""`pyswarm ca` and `pyswarm join-token` against a fake daemon: what is asked, what is shown, what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from cli_runner import Done, Run, run_cli

from pyswarm.v1 import control_pb2, control_pb2_grpc, security_pb2, security_pb2_grpc, types_pb2
from pyswarm_cli.commands import ca
from pyswarm_cli.views import security as view
from pyswarm_common.codec import set_timestamp

OLD, NEW, KEY = b"-- old root --\n", b"-- new root --\n", b"-- PRIVATE KEY --\n"
OTHER = b"-- another target --"


class FakeDaemon(security_pb2_grpc.SecurityServicer, control_pb2_grpc.ControlServicer):
    """Plays a rotation of two nodes, one step a question."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix://{folder}/s.sock"
        self.rotations: list[security_pb2.RotateRootRequest] = []
        self.created: list[security_pb2.CreateJoinTokenRequest] = []
        self.removed: list[str] = []
        self.overtaken_by: security_pb2.RootStatus | None = None
        self.updates: list[Any] = []
        self.answers: list[security_pb2.RootStatus] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        security_pb2_grpc.add_SecurityServicer_to_server(self, self._server)
        control_pb2_grpc.add_ControlServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{folder}/s.sock")
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()

    def GetRoot(self, request: Any, context: Any) -> Any:
        status = self.answers.pop(0) if len(self.answers) > 1 else (self.answers or [self.at_rest(OLD)])[0]
        return security_pb2.GetRootResponse(root=status)

    def RotateRoot(self, request: Any, context: Any) -> Any:
        self.rotations.append(request)
        first = self.underway(0)
        first.waiting.add(node_id="n2", hostname="two", state=types_pb2.NODE_STATE_DOWN)
        self.answers = [self.overtaken_by] if self.overtaken_by else [self.underway(1), self.at_rest(NEW)]
        return security_pb2.RotateRootResponse(root=first)

    def at_rest(self, root: bytes) -> security_pb2.RootStatus:
        return security_pb2.RootStatus(root_ca_cert=root, nodes_total=2, nodes_rotated=2)

    def underway(self, rotated: int, target: bytes = NEW) -> security_pb2.RootStatus:
        return security_pb2.RootStatus(root_ca_cert=OLD, target_ca_cert=target, nodes_total=2, nodes_rotated=rotated)

    def CreateJoinToken(self, request: Any, context: Any) -> Any:
        self.created.append(request)
        made = types_pb2.LimitedJoinToken(id="t1", role=request.role, uses_total=request.uses, uses_left=request.uses)
        if request.expires_in_s:
            set_timestamp(made.expires_at, time.time() + request.expires_in_s)
        return security_pb2.CreateJoinTokenResponse(token="SWMTKN-1-digest-secret", join_token=made)

    def ListJoinTokens(self, request: Any, context: Any) -> Any:
        response = security_pb2.ListJoinTokensResponse()
        fresh = response.join_tokens.add(id="t1", role=1, label="rack\x1b[31m", uses_total=3, uses_left=2)
        set_timestamp(fresh.expires_at, time.time() + 3650)
        gone = response.join_tokens.add(id="t2")
        set_timestamp(gone.expires_at, 1.0)
        response.join_tokens.add(id="t3")
        return response

    def RemoveJoinToken(self, request: Any, context: Any) -> Any:
        if request.id == "none":
            context.abort(grpc.StatusCode.NOT_FOUND, "join token none not found")
        self.removed.append(request.id)
        return security_pb2.RemoveJoinTokenResponse(id=request.id)

    def GetNode(self, request: Any, context: Any) -> Any:
        node = types_pb2.Node(id="n1", manager_status=types_pb2.ManagerStatus(address="192.0.2.1:2377"))
        return control_pb2.GetNodeResponse(node=node)

    def GetCluster(self, request: Any, context: Any) -> Any:
        return control_pb2.GetClusterResponse(cluster=types_pb2.Cluster(id="c1"))

    def UpdateCluster(self, request: Any, context: Any) -> Any:
        self.updates.append(request)
        return control_pb2.UpdateClusterResponse()


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    monkeypatch.setattr(ca, "_POLL_S", 0.0)
    fake = FakeDaemon(tmp_path)
    yield fake
    fake.close()


@pytest.fixture
def run(daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> Run:
    """`pyswarm …`: exit code, stdout, stderr."""

    def invoke(*argv: str) -> Done:
        return run_cli(capsys, "-H", daemon.address, *argv)

    return invoke


def test_the_root_is_shown(run: Any) -> None:
    assert run("ca") == (0, OLD.decode(), "")


def test_a_rotation_is_followed_to_its_end(run: Any, daemon: FakeDaemon) -> None:
    code, out, err = run("ca", "--rotate", "--cert-expiry", "2h")
    assert (code, out) == (0, NEW.decode())
    lines = err.strip().splitlines()
    assert lines[0].startswith("desired root digest: sha256:")
    assert lines[1].endswith("0/2 nodes; waiting for two (down): start what is down, or remove it (`pyswarm node rm`)")
    assert lines[2].endswith("1/2 nodes")
    assert lines[3].endswith("2/2 nodes")
    assert daemon.rotations == [security_pb2.RotateRootRequest()]
    assert daemon.updates[0].spec.node_cert_expiry_s == 7200


def test_detached_and_quiet(run: Any) -> None:
    assert run("ca", "--rotate", "-d") == (0, "", "")
    assert run("ca", "--rotate", "-q") == (0, NEW.decode(), "")


@pytest.mark.parametrize("is_still_under_way", [True, False])
def test_another_rotation_meanwhile_is_told(run: Any, daemon: FakeDaemon, is_still_under_way: bool) -> None:
    daemon.overtaken_by = daemon.underway(1, OTHER) if is_still_under_way else daemon.at_rest(OTHER)
    code, out, err = run("ca", "--rotate", "-q")
    assert code != 0
    assert not out
    assert "another rotation of the root was begun meanwhile" in err


def test_an_operators_ca_is_read_here_and_sent(run: Any, daemon: FakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "crt").write_bytes(NEW)
    (tmp_path / "key").write_bytes(KEY)
    code, out, err = run("ca", "--rotate", "--ca-cert", str(tmp_path / "crt"), "--ca-key", str(tmp_path / "key"), "-d")
    assert (code, out, err) == (0, "", "")
    assert daemon.rotations == [security_pb2.RotateRootRequest(ca_cert=NEW, ca_key=KEY)]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("--ca-cert", "x", "--ca-key", "x"), "requires the `--rotate` flag"),
        (("--cert-expiry", "2h"), "requires the `--rotate` flag"),
        (("--rotate", "--ca-cert", "x"), "--ca-key"),
        (("--rotate", "--ca-cert", "/does/not/exist", "--ca-key", "x"), "cannot read /does/not/exist"),
        (("--rotate", "--ca-cert", "/dev/zero", "--ca-key", "/dev/zero"), "too large"),
        (("--rotate", "--ca-cert", "/dev/null", "--ca-key", "/dev/null"), "/dev/null is empty"),
        (("--rotate", "--ca-cert", "", "--ca-key", ""), "is empty"),
    ],
)
def test_what_ca_refuses(run: Any, daemon: FakeDaemon, argv: tuple[str, ...], sentence: str) -> None:
    code, out, err = run("ca", *argv)
    assert code != 0
    assert not out
    assert sentence in err
    assert not daemon.rotations


def test_a_token_is_made_and_shown_once(run: Any, daemon: FakeDaemon) -> None:
    code, out, _ = run("join-token", "create", "--role", "worker", "--expires", "1h", "--uses", "3", "--label", "lab")
    assert code == 0
    assert "for 3 machines, expires in" in out
    assert "pyswarm join --token SWMTKN-1-digest-secret 192.0.2.1:2377" in out
    (asked,) = daemon.created
    assert (asked.role, asked.expires_in_s, asked.uses, asked.label) == (0, 3600, 3, "lab")
    assert run("join-token", "create", "--role", "manager", "-q") == (0, "SWMTKN-1-digest-secret\n", "")
    assert (daemon.created[1].role, daemon.created[1].expires_in_s, daemon.created[1].uses) == (1, 86_400, 0)


def test_tokens_are_listed(run: Any) -> None:
    code, out, _ = run("join-token", "ls", "--format", "json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(row["ID"], row["Role"], row["Uses"]) for row in rows] == [
        ("t1", "manager", "2/3"),
        ("t2", "worker", "any"),
        ("t3", "worker", "any"),
    ]
    assert [row["Expires"] for row in rows[1:]] == ["expired", "never"]
    assert "\x1b" not in out
    assert run("join-token", "ls", "-q")[1].split() == ["t1", "t2", "t3"]


def test_tokens_are_removed(run: Any, daemon: FakeDaemon) -> None:
    assert run("join-token", "rm", "t1", "t2") == (0, "t1\nt2\n", "")
    code, _, err = run("join-token", "rm", "none")
    assert code != 0
    assert "join token none not found" in err
    assert daemon.removed == ["t1", "t2"]


def test_progress_names_five_and_counts_the_rest() -> None:
    status = security_pb2.RootStatus(nodes_total=10, nodes_rotated=2)
    for number in range(8):
        status.waiting.add(node_id=f"n{number}", hostname=f"h{number}", state=types_pb2.NODE_STATE_DOWN)
    line = view.progress(status, 10)
    assert line.startswith("rotated TLS certificates: [=>        ] 2/10 nodes; waiting for h0 (down)")
    assert line.endswith("h4 (down) and 3 more: start what is down, or remove it (`pyswarm node rm`)")
    assert "[]" not in view.progress(security_pb2.RootStatus(), 10)

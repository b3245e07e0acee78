"""`unlock`, `unlock-key` and what `init` and `update` say about autolock, against a daemon that only answers these."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from cli_runner import Done, Run, run_cli

from pyswarm.v1 import (
    control_pb2,
    control_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    security_pb2,
    security_pb2_grpc,
    types_pb2,
)
from pyswarm_common.identity.locks import WRONG_KEY

KEY, FRESH = "SWMKEY-1-" + "A" * 43, "SWMKEY-1-" + "B" * 43


@dataclass
class Daemon(security_pb2_grpc.SecurityServicer, node_pb2_grpc.DaemonServicer, control_pb2_grpc.ControlServicer):
    """Knows one key."""

    unlocked_with: list[str] = field(default_factory=list)
    epoch: int = 0
    spec: Any = field(default_factory=types_pb2.ClusterSpec)

    def Unlock(self, request: Any, context: Any) -> Any:
        self.unlocked_with.append(request.unlock_key)
        if request.unlock_key != KEY:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, WRONG_KEY)
        return node_pb2.UnlockResponse()

    def Init(self, request: Any, context: Any) -> Any:
        return node_pb2.InitResponse(node_id="n", unlock_key=KEY if request.autolock else "")

    def GetUnlockKey(self, request: Any, context: Any) -> Any:
        return security_pb2.GetUnlockKeyResponse(unlock_key=KEY)

    def RotateUnlockKey(self, request: Any, context: Any) -> Any:
        return security_pb2.RotateUnlockKeyResponse(unlock_key=FRESH)

    def RotateEncryptionKey(self, request: Any, context: Any) -> Any:
        self.epoch += 1
        return security_pb2.RotateEncryptionKeyResponse(epoch=self.epoch)

    def GetCluster(self, request: Any, context: Any) -> Any:
        return control_pb2.GetClusterResponse(cluster=types_pb2.Cluster(spec=self.spec))

    def UpdateCluster(self, request: Any, context: Any) -> Any:
        self.spec = request.spec
        return control_pb2.UpdateClusterResponse(cluster=types_pb2.Cluster(spec=self.spec))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made, server = Daemon(), grpc.server(ThreadPoolExecutor(2))
    security_pb2_grpc.add_SecurityServicer_to_server(made, server)
    node_pb2_grpc.add_DaemonServicer_to_server(made, server)
    control_pb2_grpc.add_ControlServicer_to_server(made, server)
    server.add_insecure_port(f"unix:{tmp_path}/d.sock")
    server.start()
    yield made
    server.stop(None).wait()


@pytest.fixture
def run(daemon: Daemon, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    del daemon

    def invoke(*argv: str, stdin: str | bytes = "") -> Done:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        return run_cli(capfd, "-H", f"unix://{tmp_path}/d.sock", *argv)

    return invoke


@pytest.mark.parametrize("group", [(), ("swarm",)])
def test_the_key_is_read_from_standard_input(daemon: Daemon, run: Run, group: tuple[str, ...]) -> None:
    done = run(*group, "unlock", stdin=f"{KEY}\n")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert daemon.unlocked_with == [KEY]


@pytest.mark.parametrize("given", ["something else\n", b"\xff\x00\xed\xa0\x80" * 10_000, ""])
def test_a_wrong_key_is_refused_in_dockers_words(run: Run, given: str | bytes) -> None:
    done = run("unlock", stdin=given)
    assert done.code == 1
    assert done.err == f"Error response from daemon: {WRONG_KEY}\n"


def test_no_key_is_taken_from_the_command_line(daemon: Daemon, run: Run) -> None:
    assert run("unlock", KEY).code == 125 or run("unlock", KEY).code == 1
    assert daemon.unlocked_with == []


def test_the_key_is_shown_and_rotated(run: Run) -> None:
    assert run("unlock-key", "-q").out == f"{KEY}\n"
    shown = run("unlock-key")
    assert shown.out.startswith("To unlock a swarm manager after it restarts, run the `pyswarm unlock`\n")
    assert f"\n    {KEY}\n" in shown.out
    rotated = run("unlock-key", "--rotate")
    assert rotated.out.startswith("Successfully rotated manager unlock key.\n")
    assert f"\n    {FRESH}\n" in rotated.out
    assert run("unlock-key", "--rotate", "-q").out == f"{FRESH}\n"


def test_init_and_update_show_the_key_when_there_is_one(daemon: Daemon, run: Run) -> None:
    assert KEY not in run("init").out
    assert f"\n    {KEY}\n" in run("init", "--autolock").out
    done = run("update", "--autolock=true")
    assert done.out.startswith("Swarm updated.\n")
    assert f"\n    {KEY}\n" in done.out
    assert daemon.spec.autolock
    assert KEY in run("update", "--autolock").out
    assert run("update", "--autolock=false").out == "Swarm updated.\n"
    assert not daemon.spec.autolock


def test_the_encryption_key_is_rotated(daemon: Daemon, run: Run) -> None:
    done = run("operator", "rotate-encryption-key")
    assert done.code == 0, done.err
    assert daemon.epoch == 1

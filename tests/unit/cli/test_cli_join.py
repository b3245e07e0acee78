"""`pyswarm join`: where its token comes from, against a daemon that only answers this."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from pyswarm.v1 import node_pb2, node_pb2_grpc
from pyswarm_cli.failures import report
from pyswarm_cli.main import cli

TOKEN = f"SWMTKN-1-{'d' * 50}-{'s' * 25}"
Run = Callable[..., tuple[int, str]]


@dataclass
class Daemon(node_pb2_grpc.DaemonServicer):
    """Lets in whoever knows the token, and quotes those that do not."""

    tokens: list[str] = field(default_factory=list)

    def Join(self, request: Any, context: Any) -> Any:
        self.tokens.append(request.token)
        if request.token != TOKEN:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"what is {request.token}?")
        return node_pb2.JoinResponse(node_id="n")


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    server = grpc.server(ThreadPoolExecutor(2))
    servicer, socket = Daemon(), f"unix://{tmp_path}/socket"
    node_pb2_grpc.add_DaemonServicer_to_server(servicer, server)
    server.add_insecure_port(socket)
    server.start()
    monkeypatch.setenv("PYSWARM_HOST", socket)
    try:
        yield servicer
    finally:
        server.stop(None).wait()


@pytest.fixture
def run(daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run_it(*argv: str, stdin: bytes = b"") -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            cli.main(["join", *argv, "192.0.2.1"], standalone_mode=False)
        except Exception as error:
            return report(error), capsys.readouterr().err
        return 0, capsys.readouterr().out

    return run_it


def test_the_token_comes_from_a_file_standard_input_or_the_flag(run: Run, daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    joined = (0, "This node joined a swarm as a worker.\n")
    assert run("--token-file", str(tmp_path / "token")) == joined
    assert run("--token-file", "-", stdin=f" {TOKEN} \nmore".encode()) == joined
    assert run("--token", TOKEN) == joined
    assert daemon.tokens == [TOKEN] * 3


def test_no_token_is_sent_where_there_is_none(run: Run, daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for argv, reason in (
        ((), "a join token is needed: give --token-file or --token"),
        (("--token", TOKEN, "--token-file", "-"), "--token and --token-file do not go together"),
        (("--token-file", str(tmp_path / "empty")), "is no join token"),
        (("--token-file", "-"), "the first line of standard input is no join token"),
        (("--token-file", str(tmp_path / "none")), "No such file or directory"),
    ):
        code, said = run(*argv)
        assert code == 1
        assert reason in said
        assert said.count("\n") == 1
    assert run("--token-file", "-", stdin="Schlüssel".encode())[0] == 1
    assert daemon.tokens == []


def test_a_refusal_that_quotes_the_token_does_not_show_its_secret(run: Run) -> None:
    wrong = TOKEN.replace("sss", "xxx")
    assert run("--token", wrong) == (1, f"Error response from daemon: what is SWMTKN-1-{'d' * 50}-…?\n")

"""`events`: what is asked of the manager, what is shown, and how a stream goes on after it broke."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from cli_runner import Run, run_cli

from pyswarm.v1 import control_pb2, control_pb2_grpc, types_pb2, watch_pb2, watch_pb2_grpc
from pyswarm_cli import event_stream
from pyswarm_cli.patience import told
from pyswarm_cli.views.events import event_rows, passes
from pyswarm_common.codec import set_timestamp

WHEN = 1_700_000_000.25
CREATE, UPDATE, REMOVE = (
    watch_pb2.CHANGE_ACTION_CREATE,
    watch_pb2.CHANGE_ACTION_UPDATE,
    watch_pb2.CHANGE_ACTION_REMOVE,
)


def response(version: int, *events: Any, at: float = WHEN) -> Any:
    made = watch_pb2.WatchResponse(version=version, events=events)
    set_timestamp(made.time, at)
    return made


def service_event(action: Any = CREATE, **attributes: str) -> Any:
    service = types_pb2.Service(id="s1")
    return watch_pb2.WatchEvent(action=action, service=service, attributes={"name": "web", **attributes})


def task_event(**attributes: str) -> Any:
    about = {"name": "web.1", "service": "s1", "service.name": "web", "node": "n1", **attributes}
    return watch_pb2.WatchEvent(action=UPDATE, task=types_pb2.Task(id="t1"), attributes=about)


class Manager(watch_pb2_grpc.WatchServicer, control_pb2_grpc.ControlServicer):
    """Plays one script for each watch: messages, and a status to end with."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.scripts: list[tuple[list[Any], grpc.StatusCode | None]] = []

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        self.asked.append(request)
        messages, end = self.scripts.pop(0)
        yield from messages
        if end is not None:
            context.abort(end, "so it ends")

    def ListServices(self, request: Any, context: Any) -> Any:
        service = types_pb2.Service(id="s1", spec=types_pb2.ServiceSpec(name="web"))
        return control_pb2.ListServicesResponse(services=[service])

    def ListTasks(self, request: Any, context: Any) -> Any:
        return control_pb2.ListTasksResponse(tasks=[types_pb2.Task(id="t1", service_name="web", slot=1)])

    def GetNode(self, request: Any, context: Any) -> Any:
        if request.node != "worker1":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such node")
        return control_pb2.GetNodeResponse(node=types_pb2.Node(id="n1"))


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    made, server = Manager(), grpc.server(ThreadPoolExecutor(4))
    watch_pb2_grpc.add_WatchServicer_to_server(made, server)
    control_pb2_grpc.add_ControlServicer_to_server(made, server)
    server.add_insecure_port(f"unix:{tmp_path}/d.sock")
    server.start()
    monkeypatch.setattr(event_stream, "_RECONNECT_DELAY_S", 0.0)
    yield made
    server.stop(None).wait()


@pytest.fixture
def run(manager: Manager, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return lambda *argv: run_cli(capsys, "-H", f"unix://{tmp_path}/d.sock", *argv)


def test_lines_are_docker_s_with_the_time_of_the_commit(manager: Manager, run: Run) -> None:
    changed = service_event(UPDATE, **{"replicas.old": "1", "replicas.new": "3"})
    gone = watch_pb2.WatchEvent(action=REMOVE, network=types_pb2.Network(id="x"), attributes={"name": "net"})
    manager.scripts = [([response(9), response(10, changed, gone)], None)]
    assert run("events").out.splitlines() == [
        "2023-11-14T22:13:20.250000Z service update s1 (name=web, replicas.new=3, replicas.old=1)",
        "2023-11-14T22:13:20.250000Z network remove x (name=net)",
    ]


def test_health_is_an_event_of_its_own(manager: Manager, run: Run) -> None:
    only_health = task_event(**{"health.old": "starting", "health.new": "healthy"})
    both = task_event(**{"health.old": "healthy", "health.new": "unhealthy", "state.new": "failed"})
    script = ([response(10, only_health, both)], None)
    manager.scripts = [script, script]
    assert run("events", "--format", "{{.Action}}").out.splitlines() == [
        "health_status: healthy",
        "update",
        "health_status: unhealthy",
    ]
    assert (
        run("events", "--filter", "event=health_status", "--filter", "health=unhealthy", "--format", "{{.ID}}").out
        == "t1\n"
    )


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["type=service"], ["s1"]),
        (["service=web"], ["s1", "t1"]),
        (["service=s1", "type=task"], ["t1"]),
        (["node=worker1"], ["t1"]),
        (["node=n9"], []),
        (["label=tier=front"], ["s1"]),
        (["label=tier"], ["s1"]),
        (["scope=swarm", "event=create"], ["s1"]),
        (["scope=local"], []),
        (["task=web.1"], ["t1"]),
    ],
)
def test_filters(manager: Manager, run: Run, argv: list[str], shown: list[str]) -> None:
    manager.scripts = [([response(10, service_event(tier="front"), task_event())], None)]
    flags = [part for text in argv for part in ("--filter", text)]
    assert run("events", *flags, "--format", "{{.ID}}").out.split() == shown


@pytest.mark.parametrize(
    ("since", "version", "seconds"), [("v4711", 4711, 0), ("4711", 4711, 0), ("1700000000", 0, 1_700_000_000)]
)
def test_since(manager: Manager, run: Run, since: str, version: int, seconds: int) -> None:
    manager.scripts = [([response(10)], None)]
    run("events", "--since", since)
    assert (manager.asked[0].resume_from, manager.asked[0].since.seconds) == (version, seconds)


def test_until_in_the_past_ends_with_what_there_is(manager: Manager, run: Run) -> None:
    later = response(11, service_event(REMOVE), at=time.time())
    manager.scripts = [([response(10, service_event()), later], None)]
    until = str(WHEN + 1)
    assert run("events", "--since", "1", "--until", until, "--format", "{{.Action}}").out == "create\n"
    assert manager.asked[0].no_follow


def test_a_stream_that_breaks_goes_on_where_it_was(manager: Manager, run: Run) -> None:
    manager.scripts = [
        ([response(9), response(10, service_event())], grpc.StatusCode.UNAVAILABLE),
        ([response(10), response(12, service_event(REMOVE))], None),
    ]
    assert run("events", "--format", "{{.Action}} {{.Version}}").out == "create 10\nremove 12\n"
    assert [asked.resume_from for asked in manager.asked] == [0, 10]


def test_what_is_no_longer_kept_is_listed_and_said(manager: Manager, run: Run) -> None:
    manager.scripts = [
        ([], grpc.StatusCode.OUT_OF_RANGE),
        ([response(50)], None),
        ([response(50), response(51, service_event(REMOVE))], None),
    ]
    done = run("events", "--since", "v3", "--filter", "type=service", "--filter", "type=task", "--format", "json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["Action"], row["ID"]) for row in rows] == [("exists", "s1"), ("exists", "t1"), ("remove", "s1")]
    assert "some events were missed" in done.err
    assert [asked.resume_from for asked in manager.asked] == [3, 0, 50]


def test_who_gives_up_tells_where_to_go_on(manager: Manager, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "_RECONNECTS", 0)
    manager.scripts = [([response(77, service_event())], grpc.StatusCode.UNAVAILABLE)]
    done = run("events")
    assert done.code == 1
    assert "pyswarm events --since v77" in done.err


def test_filters_narrow_and_their_values_are_alternatives() -> None:
    (row,) = event_rows(service_event(), WHEN, 1)
    assert passes(row, {"type": ["task", "service"], "service": ["web"]}, {})
    assert not passes(row, {"type": ["service"], "service": ["api"]}, {})


def test_whoever_waits_is_told_so_once_and_whoever_does_not_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    over = threading.Event()
    with told("still waiting", after_s=0.0):
        while "still waiting" not in capsys.readouterr().err:
            over.wait(0.01)
    with told("never said", after_s=3600.0):
        pass
    assert capsys.readouterr().err == ""

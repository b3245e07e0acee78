"""Commands against a fake daemon: what they send, what they show, how they end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cli_runner import Done, Run, run_cli
from fake_daemon import FakeDaemon

from pyswarm.v1 import types_pb2, watch_pb2

RUNNING, SHUTDOWN, FAILED = types_pb2.TASK_STATE_RUNNING, types_pb2.TASK_STATE_SHUTDOWN, types_pb2.TASK_STATE_FAILED
UPDATE = watch_pb2.CHANGE_ACTION_UPDATE


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    made = FakeDaemon(tmp_path)
    yield made
    made.close()


@pytest.fixture
def run(daemon: FakeDaemon, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs `pyswarm …` in this process, as `main` does."""

    def invoke(*argv: str) -> Done:
        return run_cli(capfd, "-H", daemon.address, *argv)

    return invoke


def test_services_are_listed_by_name_with_docker_s_columns(daemon: FakeDaemon, run: Run) -> None:
    web = daemon.put_service("web", 2)
    daemon.put_task(web, 1, RUNNING)
    daemon.put_service("api", 1)
    lines = run("service", "ls").out.splitlines()
    assert lines[0].split() == ["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"]
    assert lines[1].split() == ["apiid0000000", "api", "replicated", "0/1", "img:1"]
    assert lines[2].split() == ["webid0000000", "web", "replicated", "1/2", "img:1"]
    assert run("service", "ls", "-q").out == "apiid0000000\nwebid0000000\n"
    assert run("service", "ls", "--format", "{{.Name}}").out == "api\nweb\n"
    assert json.loads(run("service", "ls", "--format", "json").out.splitlines()[0])["Replicas"] == "0/1"
    assert run("service", "ls", "--filter", "mode=global").out.count("\n") == 1


def test_nodes_come_page_by_page_and_a_star_marks_our_own(daemon: FakeDaemon, run: Run) -> None:
    for name in ("n2", "n10", "n1"):
        node = types_pb2.Node(id=f"{name}id")
        node.description.hostname = name
        node.status.state = types_pb2.NODE_STATE_READY
        daemon.nodes[name] = node
    daemon.nodes["n1"].manager_status.leader = True
    daemon.nodes["n2"].manager_status.reachable = False
    lines = run("node", "ls").out.splitlines()
    assert lines[1].split() == ["n1id", "*", "n1", "Ready", "Active", "Leader"]
    assert lines[2].split() == ["n2id", "n2", "Ready", "Active", "Unreachable"]
    assert lines[3].split() == ["n10id", "n10", "Ready", "Active"]


def test_earlier_tasks_of_a_slot_stand_below_the_present_one(daemon: FakeDaemon, run: Run) -> None:
    web = daemon.put_service("web", 1)
    old = daemon.put_task(web, 1, FAILED)
    old.desired_state, old.status.err = SHUTDOWN, "task: non-zero exit (1) and a very long story"
    old.meta.created_at.seconds = 1
    daemon.put_task(web, 1, RUNNING).meta.created_at.seconds = 2
    lines = run("service", "ps", "web").out.splitlines()
    assert lines[1].split()[1] == "web.1"
    assert " \\_ web.1 " in lines[2]
    assert '"task: non-zero exit (1) and a…"' in lines[2]
    assert "and a very long story" in run("service", "ps", "--no-trunc", "web").out


def test_a_refusal_is_one_line_and_exit_code_1(run: Run) -> None:
    done = run("service", "inspect", "nope")
    assert done == Done(1, "", "Error response from daemon: service nope not found\n")


def test_what_can_be_done_is_done_although_another_name_is_unknown(daemon: FakeDaemon, run: Run) -> None:
    daemon.put_service("web")
    done = run("service", "ps", "nope", "web")
    assert done.code == 1
    assert done.out.startswith("ID ")
    assert done.err == "Error response from daemon: service nope not found\n"


def test_scaling_keeps_what_others_changed_in_between(daemon: FakeDaemon, run: Run) -> None:
    daemon.put_service("web", 1)
    daemon.rivals = 3
    assert run("service", "scale", "-d", "web=5") == Done(0, "web scaled to 5\n", "")
    sent = daemon.updates[-1]
    assert sent.spec.replicas == 5
    assert len(sent.spec.labels) == 3
    assert sent.spec.task.container.image == "img:1"


def test_scaling_gives_up_when_others_are_always_faster(daemon: FakeDaemon, run: Run) -> None:
    daemon.put_service("web", 1)
    daemon.rivals = 1000
    assert run("service", "scale", "-d", "web=5") == Done(1, "", "Error response from daemon: update out of sequence\n")
    assert daemon.rivals == 990


def test_an_update_that_was_not_answered_is_not_repeated(daemon: FakeDaemon, run: Run) -> None:
    """It may have been done: only a refused version is tried again."""
    daemon.put_service("web", 1)
    daemon.leaderless = True
    assert run("service", "scale", "-d", "web=5") == Done(1, "", "Error response from daemon: no leader\n")
    assert len(daemon.updates) == 1


def test_a_service_without_a_name_gets_one(daemon: FakeDaemon, run: Run) -> None:
    assert run("service", "create", "-d", "img:1").code == 0
    (service,) = daemon.services.values()
    assert "_" in service.spec.name


def test_create_waits_by_the_watch_until_all_tasks_run(daemon: FakeDaemon, run: Run) -> None:
    def play() -> None:
        wait_for(lambda: daemon.watches)
        (service,) = daemon.services.values()
        for slot in (1, 2):
            daemon.tell(UPDATE, task=daemon.put_task(service, slot, RUNNING))

    with acting(play):
        done = run("service", "create", "--name", "web", "--replicas", "2", "--update-monitor", "0s", "img:1")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "verify: Service web converged"
    assert "overall progress: 2 out of 2 tasks" in done.out


def test_a_paused_update_ends_the_wait_with_exit_code_1(daemon: FakeDaemon, run: Run) -> None:
    service = daemon.put_service("web", 1)

    def play() -> None:
        wait_for(lambda: daemon.watches)
        service.update_status.state = types_pb2.UPDATE_STATE_PAUSED
        service.update_status.message = "update paused due to failure of task x"
        service.meta.version += 1
        daemon.tell(UPDATE, service=service)

    with acting(play):
        done = run("service", "update", "--image", "img:2", "web")
    assert done.code == 1
    assert done.err == "service update paused: update paused due to failure of task x\n"


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OUT_OF_RANGE])
def test_a_watch_that_breaks_is_started_again(daemon: FakeDaemon, run: Run, status: Any) -> None:
    service = daemon.put_service("web", 1)
    service.spec.update.monitor_s = 0.0
    daemon.put_task(service, 1, RUNNING)
    daemon.on_watch = [(status, "go away"), (status, "go away")]
    assert run("service", "scale", "web=1").out.splitlines()[-1] == "verify: Service web converged"


def test_a_bug_of_ours_is_one_line_too(daemon: FakeDaemon, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyswarm_cli.commands.service.all_services", lambda *_: 1 / 0)
    done = run("service", "ls")
    assert done.code == 1
    assert done.err.startswith("pyswarm: internal error (ZeroDivisionError: division by zero)")
    assert done.err.count("\n") == 1


def test_output_into_a_closed_pipe_ends_quietly(daemon: FakeDaemon) -> None:
    daemon.put_service("web")
    program = str(Path(sys.executable).parent / "pyswarm")
    script = f"{program} -H {daemon.address} service ls; {program} -H {daemon.address} service inspect web | true"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("redirected", "reason"),
    [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device"), (">&- <&-", "Bad file descriptor")],
)
def test_output_that_cannot_be_written_is_one_sentence(daemon: FakeDaemon, redirected: str, reason: str) -> None:
    daemon.put_service("web")
    program = str(Path(sys.executable).parent / "pyswarm")
    script = f"{program} -H {daemon.address} service ls {redirected}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, f"cannot write the output: {reason}\n")


def test_closed_standard_input_and_errors_are_empty_ones(daemon: FakeDaemon) -> None:
    program = str(Path(sys.executable).parent / "pyswarm")
    script = f"{program} -H {daemon.address} join --token-file - host <&-; {program} -H {daemon.address} info 2>&-"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.startswith("the first line of standard input is no join token")
    assert done.stderr.count("\n") == 1


def test_help_imports_neither_grpc_nor_protobuf_nor_the_model() -> None:
    program = "import sys, pyswarm_cli.main as m; m.cli.main(['service', '--help'], standalone_mode=False); "
    program += "print([name for name in ('grpc', 'google.protobuf', 'msgspec', 'pyswarm_lab') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def wait_for(condition: Callable[[], Any]) -> None:
    gate = threading.Event()
    for _ in range(1000):
        if condition():
            return
        gate.wait(0.01)
    raise AssertionError("did not happen")


class acting:  # noqa: N801 - reads as a word
    """Something that happens beside the command."""

    def __init__(self, play: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=play)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._thread.join()

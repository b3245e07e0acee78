"""When a service has converged, and what is shown on the way."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from pyswarm.v1 import watch_pb2
from pyswarm_cli.service.follow import _progress_of, bar_line, plain_line, take
from pyswarm_cli.service.progress import Outcome, Progress, TaskLine
from pyswarm_common.codec import to_proto
from pyswarm_common.model import (
    ContainerSpec,
    Meta,
    Service,
    ServiceMode,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
    UpdateState,
    UpdateStatus,
)

SPEC = ServiceSpec(name="web", replicas=2, task=TaskSpec(container=ContainerSpec(image="a")))
SERVICE = Service(id="s", spec=SPEC)


def task(slot: int, state: TaskState, created: float = 1.0, image: str = "a", err: str = "") -> Task:
    return Task(
        id=f"t{slot}{created}{state}",
        service_id="s",
        service_name="web",
        slot=slot,
        spec=TaskSpec(container=ContainerSpec(image=image)),
        meta=Meta(created_at=created),
        desired_state=TaskState.RUNNING,
        status=TaskStatus(state=state, err=err),
    )


def progress(*tasks: Task, service: Service = SERVICE) -> Progress:
    return Progress(service, tasks={item.id: item for item in tasks})


def with_update(state: UpdateState, message: str = "") -> Service:
    return replace(SERVICE, update_status=UpdateStatus(state=state, message=message))


def test_every_slot_has_a_line_also_before_its_task_exists() -> None:
    picture = progress(task(1, TaskState.PREPARING)).look(0)
    assert picture.overall == "overall progress: 0 out of 2 tasks"
    assert [(line.label, line.text) for line in picture.lines] == [("1/2", "preparing"), ("2/2", "")]
    assert picture.outcome is Outcome.GOING


def test_it_has_converged_when_all_tasks_ran_for_the_monitor_time() -> None:
    waiting = progress(task(1, TaskState.RUNNING), task(2, TaskState.RUNNING))
    first = waiting.look(100.0)
    assert (first.outcome, first.wake_at) == (Outcome.GOING, 101.0)
    assert first.verify == "verify: Waiting 5 seconds to verify that tasks are stable..."
    assert waiting.look(104.9).outcome is Outcome.GOING
    last = waiting.look(105.0)
    assert (last.outcome, last.verify) == (Outcome.CONVERGED, "verify: Service web converged")


def test_a_rollback_that_was_over_before_is_no_news() -> None:
    """`service start` of one that runs, or an update without changes, after a rollback: nothing went wrong."""
    service = with_update(UpdateState.ROLLBACK_COMPLETED, "rollback completed")
    waiting = _progress_of(service, rollback=False, run=0)
    assert isinstance(waiting, Progress)
    waiting.tasks = {item.id: item for item in (task(1, TaskState.RUNNING), task(2, TaskState.RUNNING))}
    first = waiting.look(100.0)
    assert (first.overall, first.outcome) == ("overall progress: 2 out of 2 tasks", Outcome.GOING)
    assert waiting.look(105.0).outcome is Outcome.CONVERGED


def test_a_task_that_fails_while_we_verify_starts_the_wait_again() -> None:
    waiting = progress(task(1, TaskState.RUNNING), task(2, TaskState.RUNNING))
    waiting.look(100.0)
    lost = task(2, TaskState.RUNNING)
    waiting.tasks[lost.id] = replace(lost, status=TaskStatus(state=TaskState.FAILED, err="exit 1"))
    picture = waiting.look(103.0)
    assert (picture.outcome, picture.verify) == (Outcome.GOING, "verify: Detected task failure")
    assert plain_line(picture.lines[1]) == "2/2: exit 1"
    waiting.tasks["new"] = task(2, TaskState.RUNNING, created=2.0)
    assert waiting.look(106.0).outcome is Outcome.GOING
    assert waiting.look(111.0).outcome is Outcome.CONVERGED


def test_a_service_of_no_replicas_converges_too() -> None:
    waiting = progress(service=replace(SERVICE, spec=replace(SPEC, replicas=0)))
    waiting.look(0.0)
    assert waiting.look(5.0).outcome is Outcome.CONVERGED


def test_during_an_update_only_tasks_of_the_new_spec_count() -> None:
    waiting = progress(
        task(1, TaskState.RUNNING), task(2, TaskState.RUNNING, image="old"), service=with_update(UpdateState.UPDATING)
    )
    assert waiting.look(0).overall == "overall progress: 1 out of 2 tasks"
    waiting.tasks = {item.id: item for item in (task(1, TaskState.RUNNING), task(2, TaskState.RUNNING))}
    waiting.service = with_update(UpdateState.COMPLETED)
    assert waiting.look(1).outcome is Outcome.CONVERGED  # each was watched by the update already


def test_a_completed_update_of_before_does_not_end_the_wait() -> None:
    waiting = progress(
        task(1, TaskState.RUNNING), task(2, TaskState.RUNNING), service=with_update(UpdateState.COMPLETED)
    )
    assert waiting.look(0).outcome is Outcome.GOING


def test_a_paused_update_and_an_unwanted_rollback_are_failures() -> None:
    paused = progress(service=with_update(UpdateState.PAUSED, "task x failed")).look(0)
    assert (paused.outcome, paused.message) == (Outcome.FAILED, "service update paused: task x failed")
    back = progress(service=with_update(UpdateState.ROLLBACK_COMPLETED, "why")).look(0)
    assert (back.outcome, back.message) == (Outcome.FAILED, "service rolled back: why")


def test_a_rollback_that_was_asked_for_is_none() -> None:
    waiting = progress(task(1, TaskState.RUNNING), task(2, TaskState.RUNNING))
    waiting.is_rollback = True
    waiting.service = with_update(UpdateState.ROLLBACK_STARTED)
    assert waiting.look(0).overall == "overall progress: rolling back update: 2 out of 2 tasks"
    waiting.service = with_update(UpdateState.ROLLBACK_COMPLETED)
    waiting.look(1)
    assert waiting.look(6).outcome is Outcome.CONVERGED


def test_a_removed_service_ends_the_wait() -> None:
    waiting = progress()
    waiting.removed = True
    assert waiting.look(0).message == "service web was removed"


def test_tasks_that_are_to_stop_do_not_count() -> None:
    old = replace(task(1, TaskState.RUNNING), desired_state=TaskState.SHUTDOWN)
    assert progress(old).look(0).overall == "overall progress: 0 out of 2 tasks"


def test_a_global_service_has_a_line_per_node() -> None:
    service = replace(SERVICE, spec=replace(SPEC, mode=ServiceMode.GLOBAL, replicas=None))
    one = replace(task(0, TaskState.RUNNING), node_id="nodeonelongid")
    picture = progress(one, service=service).look(0)
    assert picture.overall == "overall progress: 1 out of 1 tasks"
    assert [line.label for line in picture.lines] == ["nodeonelongi"]


def test_many_tasks_are_only_counted() -> None:
    assert progress(service=replace(SERVICE, spec=replace(SPEC, replicas=100))).look(0).lines == ()


def test_a_pending_task_says_why() -> None:
    picture = progress(task(1, TaskState.PENDING, err="no suitable node")).look(0)
    assert plain_line(picture.lines[0]) == "1/2: no suitable node"
    new = replace(task(1, TaskState.NEW), status=TaskStatus(state=TaskState.NEW, message="no free address left"))
    assert plain_line(progress(new).look(0).lines[0]) == "1/2: no free address left"
    assert plain_line(progress(task(1, TaskState.NEW)).look(0).lines[0]) == "1/2: new"


def test_bars_grow_with_the_state() -> None:
    assert bar_line(TaskLine("1/2", "running", 9)) == "1/2: running     [" + "=" * 49 + ">]"
    assert bar_line(TaskLine("1/2", "no such image", 0)) == "1/2: no such image"


def test_an_event_that_is_older_than_what_is_known_changes_nothing() -> None:
    newer = replace(task(1, TaskState.STARTING), id="t", meta=Meta(version=9))
    waiting = progress(newer, service=replace(SERVICE, meta=Meta(version=9)))
    older = replace(newer, meta=Meta(version=8), status=TaskStatus(state=TaskState.PREPARING))
    take(waiting, event(watch_pb2.CHANGE_ACTION_UPDATE, task=to_proto(older)))
    take(waiting, event(watch_pb2.CHANGE_ACTION_UPDATE, service=to_proto(replace(SERVICE, meta=Meta(version=8)))))
    assert waiting.tasks["t"] is newer
    assert waiting.service.meta.version == 9


def test_events_change_what_they_name_and_nothing_of_other_services() -> None:
    waiting = progress(task(1, TaskState.STARTING))
    (known,) = waiting.tasks.values()
    running = replace(known, meta=Meta(version=1), status=TaskStatus(state=TaskState.RUNNING))
    take(waiting, event(watch_pb2.CHANGE_ACTION_UPDATE, task=to_proto(running)))
    assert waiting.tasks == {known.id: running}
    take(waiting, event(watch_pb2.CHANGE_ACTION_REMOVE, task=to_proto(replace(running, service_id="other"))))
    assert waiting.tasks == {known.id: running}
    take(waiting, event(watch_pb2.CHANGE_ACTION_REMOVE, task=to_proto(running)))
    assert waiting.tasks == {}
    take(waiting, event(watch_pb2.CHANGE_ACTION_REMOVE, service=to_proto(SERVICE)))
    assert waiting.removed


def event(action: int, **content: Any) -> Any:
    return watch_pb2.WatchEvent(action=action, **content)

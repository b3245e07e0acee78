"""One task's life, as a table of stories and as properties over any order of events."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm_common.model import ContainerStatus, HealthState, TaskState, TaskStatus
from pyswarm_worker.core import task_machine as tm

RUN = tm.Wanted(TaskState.RUNNING)
WAIT = tm.Wanted(TaskState.READY)
SHUTDOWN = tm.Wanted(TaskState.SHUTDOWN)
REMOVE = tm.Wanted(TaskState.REMOVE)
EXIT_0, EXIT_1 = tm.Exited(0), tm.Exited(1)
READY = (tm.ImageReady(), tm.Attached("/ns"), tm.Created("c1"))
UP = (RUN, *READY, tm.Started(7, probed=False))


def play(*events: tm.Event) -> tuple[tm.Machine, list[str]]:
    """The machine after the events, and what it did, shortly."""
    machine, done = tm.Machine(), []
    for event in events:
        machine, effects = tm.handle(machine, event)
        done += [shown(effect) for effect in effects]
    return machine, done


def test_health_is_told_with_the_container() -> None:
    def health(*events: tm.Event) -> HealthState:
        machine, _ = play(RUN, *READY, *events)
        assert machine.reported.container is not None
        return machine.reported.container.health

    started = tm.Started(7, probed=True)
    assert health(tm.Started(7, probed=False)) is HealthState.NONE
    assert health(started) is HealthState.STARTING
    assert health(started, tm.Healthy()) is HealthState.HEALTHY
    ending = (tm.Unhealthy("no"), tm.Stopped(EXIT_0), tm.Released())
    assert health(started, tm.Healthy(), *ending) is HealthState.UNHEALTHY


def shown(effect: tm.Effect) -> str:
    return effect.status.state.name if isinstance(effect, tm.Report) else type(effect).__name__


STARTING = ["ACCEPTED", "PREPARING", "FetchImage", "Attach", "Create", "READY", "STARTING", "Start"]
STORIES = {
    "runs": (UP, [*STARTING, "RUNNING"]),
    "waits at READY until it is wanted": ((WAIT, *READY), STARTING[:6]),
    "starts when it is wanted": ((WAIT, *READY, RUN), STARTING),
    "completes": ((*UP, EXIT_0, tm.Released()), [*STARTING, "RUNNING", "EndProbe", "Detach", "COMPLETE"]),
    "fails": ((*UP, EXIT_1, tm.Released()), [*STARTING, "RUNNING", "EndProbe", "Detach", "FAILED"]),
    "ends before we hear that it started": (
        (RUN, *READY, EXIT_1, tm.Started(7, probed=False), tm.Released()),
        [*STARTING, "Detach", "FAILED"],
    ),
    "is shut down, and keeps its container for the logs": (
        (*UP, SHUTDOWN, tm.Stopped(EXIT_0), tm.Released()),
        [*STARTING, "RUNNING", "EndProbe", "Stop", "Detach", "SHUTDOWN"],
    ),
    "is removed with its container": (
        (*UP, tm.Forgotten(), tm.Stopped(EXIT_0), tm.Released(), tm.Removed()),
        [*STARTING, "RUNNING", "EndProbe", "Stop", "Detach", "SHUTDOWN", "RemoveContainer", "Forget"],
    ),
    "is forgotten long after its end": (
        (*UP, EXIT_0, tm.Released(), tm.Forgotten(), tm.Removed()),
        [*STARTING, "RUNNING", "EndProbe", "Detach", "COMPLETE", "RemoveContainer", "Forget"],
    ),
    "is unwanted while its image is fetched": (
        (RUN, SHUTDOWN, tm.Failed("cancelled")),
        [*STARTING[:3], "Cancel", "SHUTDOWN"],
    ),
    "is unwanted while its container is made": (
        (RUN, *READY[:2], REMOVE, tm.Created("c1"), tm.Released(), tm.Removed()),
        [*STARTING[:6], "Detach", "RemoveContainer", "SHUTDOWN"],
    ),
    "has no image": ((RUN, tm.Failed("No such image: x")), [*STARTING[:3], "REJECTED"]),
    "cannot be attached": (
        (RUN, tm.ImageReady(), tm.Failed("no address"), tm.Released()),
        [*STARTING[:4], "Detach", "REJECTED"],
    ),
    "cannot be started": (
        (RUN, *READY, tm.Failed("exec: not found"), tm.Released(), tm.Removed()),
        [*STARTING, "Detach", "RemoveContainer", "FAILED"],
    ),
    "is RUNNING only when it is healthy": (
        (RUN, *READY, tm.Started(7, probed=True), tm.Healthy()),
        [*STARTING, "STARTING", "Probe", "RUNNING"],
    ),
    "becomes unhealthy": (
        (RUN, *READY, tm.Started(7, probed=True), tm.Healthy(), tm.Unhealthy("no"), tm.Stopped(EXIT_0), tm.Released()),
        [*STARTING, "STARTING", "Probe", "RUNNING", "EndProbe", "Stop", "Detach", "FAILED"],
    ),
    "cannot be stopped, and does not stay with its log": (
        (*UP, SHUTDOWN, tm.Failed("stuck"), tm.Released(), tm.Removed()),
        [*STARTING, "RUNNING", "EndProbe", "Stop", "Detach", "RemoveContainer", "SHUTDOWN"],
    ),
    "was never wanted": ((SHUTDOWN,), ["SHUTDOWN"]),
}


@pytest.mark.parametrize("story", STORIES)
def test_stories(story: str) -> None:
    events, expected = STORIES[story]
    assert play(*events)[1] == expected


def test_the_reason_is_in_the_status() -> None:
    machine, _ = play(*UP, tm.Exited(137, oom_killed=True), tm.Released())
    assert machine.reported.err == "task: non-zero exit (137): out of memory"
    assert machine.reported.container == ContainerStatus(container_id="c1", exit_code=137, oom_killed=True)
    machine, _ = play(RUN, tm.Failed("No such image: x"))
    assert machine.reported.err == "No such image: x"


def test_progress_is_shown_while_the_image_is_fetched() -> None:
    machine, _ = play(RUN, tm.Progress("preparing: fetching image from n2"))
    assert machine.reported.message == "preparing: fetching image from n2"
    assert machine.reported.state is TaskState.PREPARING


EVENTS = st.one_of(
    st.sampled_from([RUN, WAIT, SHUTDOWN, REMOVE, tm.Forgotten(), tm.Progress("p"), tm.ImageReady(), tm.Healthy()]),
    st.sampled_from([tm.Attached("/ns"), tm.Created("c1"), tm.Started(7, probed=True), tm.Started(7, probed=False)]),
    st.sampled_from([EXIT_0, EXIT_1, tm.Stopped(EXIT_0), tm.Released(), tm.Removed(), tm.Failed("f")]),
    st.just(tm.Unhealthy("u")),
)


@given(st.lists(EVENTS, max_size=40))
def test_what_is_reported_never_goes_back(events: list[tm.Event]) -> None:
    machine, last = tm.Machine(), TaskState.ASSIGNED
    for event in events:
        machine, effects = tm.handle(machine, event)
        for effect in effects:
            if isinstance(effect, tm.Report):
                assert effect.status.state >= last
                assert not last.is_terminal
                last = effect.status.state


OUTCOMES: dict[type[tm.Effect], tuple[tm.Event, ...]] = {
    tm.FetchImage: (tm.ImageReady(), tm.Failed("fetch")),
    tm.Attach: (tm.Attached("/ns"), tm.Failed("attach")),
    tm.Create: (tm.Created("c1"), tm.Failed("create")),
    tm.Start: (tm.Started(7, probed=True), tm.Started(7, probed=False), tm.Failed("start")),
    tm.Stop: (tm.Stopped(EXIT_1), tm.Failed("stop")),
    tm.Detach: (tm.Released(), tm.Failed("detach")),
    tm.RemoveContainer: (tm.Removed(), tm.Failed("remove")),
}
ASIDE: tuple[tm.Event, ...] = (RUN, SHUTDOWN, REMOVE, tm.Forgotten(), EXIT_0, EXIT_1, tm.Healthy(), tm.Unhealthy("u"))


class Node:
    """A runner that performs the effects, with outcomes that the test draws."""

    def __init__(self) -> None:
        self.machine = tm.Machine()
        self.work: tm.Effect | None = None
        self.attached = self.gone = self.has_stopped = False
        self.container = ""

    def post(self, event: tm.Event) -> None:
        self.has_stopped = self.has_stopped or isinstance(event, tm.Exited)
        self.machine, effects = tm.handle(self.machine, event)
        for effect in effects:
            if type(effect) in OUTCOMES:
                assert self.work is None, "two pieces of work at once"
                self.work = effect
            self.gone = self.gone or isinstance(effect, tm.Forget)

    def finish_work(self, draw: st.DataObject) -> None:
        work, self.work = self.work, None
        outcome = draw.draw(st.sampled_from(OUTCOMES[type(work)]))
        if isinstance(work, tm.Attach):
            self.attached = True
        if isinstance(work, tm.Detach):
            self.attached = False
        if isinstance(outcome, tm.Created):
            self.container = "c1"
        if isinstance(work, tm.RemoveContainer):
            self.container = ""
        self.has_stopped = self.has_stopped or isinstance(outcome, tm.Stopped)
        self.post(outcome)


@settings(max_examples=300)
@given(st.data())
def test_every_task_that_is_told_to_end_ends_and_holds_nothing(draw: st.DataObject) -> None:
    node = Node()
    node.post(RUN)
    for _ in range(draw.draw(st.integers(0, 12))):
        if node.work is not None and draw.draw(st.booleans()):
            node.finish_work(draw)
        else:
            node.post(draw.draw(st.sampled_from(ASIDE)))
    node.post(SHUTDOWN)
    while node.work is not None:
        node.finish_work(draw)
    assert node.gone or node.machine.reported.state.is_terminal
    assert not node.attached
    assert not node.container or node.machine.started
    assert not node.container or node.has_stopped, "what is kept is a stopped container"
    node.post(tm.Forgotten())
    while node.work is not None:
        node.finish_work(draw)
    assert node.gone
    assert not node.container


RESUMED = {
    "running": (TaskState.RUNNING, tm.Found("c1", has_started=True), tm.Step.STARTING, []),
    "never started": (TaskState.PREPARING, None, tm.Step.NEW, []),
    "starting, but no container": (TaskState.STARTING, None, tm.Step.NEW, []),
    "container gone": (TaskState.RUNNING, None, tm.Step.RELEASING, ["Detach"]),
    "ended before": (TaskState.FAILED, tm.Found("c1", has_started=True), tm.Step.ENDED, []),
}


@pytest.mark.parametrize("case", RESUMED)
def test_resume(case: str) -> None:
    state, found, step, expected = RESUMED[case]
    machine, effects = tm.resume(TaskStatus(state=state, timestamp=5.0), found)
    assert (machine.step, [shown(effect) for effect in effects]) == (step, expected)


@settings(max_examples=300)
@given(
    st.sampled_from([TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED, TaskState.REJECTED]),
    st.sampled_from([None, tm.Found("c1", has_started=True)]),
    st.lists(EVENTS, max_size=12),
)
def test_what_has_ended_never_runs_again(ended: TaskState, found: tm.Found | None, events: list[tm.Event]) -> None:
    """With its container or, where the agent lost all it knew, without."""
    reported = TaskStatus(state=ended, container=ContainerStatus(container_id="c1", exit_code=3))
    machine, done = tm.resume(reported, found)
    forgotten = False
    for event in events:
        forgotten = forgotten or isinstance(event, tm.Forgotten)
        machine, effects = tm.handle(machine, event)
        done += effects
    allowed = (tm.RemoveContainer, tm.Forget) if forgotten else ()
    assert all(isinstance(effect, allowed) for effect in done)


def test_a_resumed_running_task_reports_nothing_new() -> None:
    reported = TaskStatus(
        state=TaskState.RUNNING, message="started", container=ContainerStatus(container_id="c1", pid=7)
    )
    machine, _ = tm.resume(reported, tm.Found("c1", has_started=True))
    machine, effects = tm.handle(machine, tm.Started(7, probed=False))
    assert (machine.step, effects) == (tm.Step.RUNNING, ())

"""One task on this node, from ACCEPTED to its end: `handle(machine, event) -> (machine, effects)`.

Decides what happens next to one task. Never performs anything: the runner performs each effect and hands its outcome
back as the next event. At most one piece of *work* (fetch, attach, create, start, stop, detach, remove) is under way at
a time, so nothing here races with itself; only the health probe runs beside it.

What holds, whatever the order of events (the property tests say so):
 - what is reported only moves forward;
 - whatever fails, the task ends in a terminal state, its sandbox detached, a container that never ran removed;
 - the container that did run is kept for its log, until the task is no longer assigned; one that could not be stopped
   is removed by force.

`TABLE` is the whole machine. What it does not list changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

from msgspec import structs

from pyswarm_common.model import ContainerStatus, HealthState, TaskState, TaskStatus


class Step(Enum):
    """Where the task is; the work that is under way gives the step its name."""

    NEW = "new"
    FETCHING = "fetching"
    ATTACHING = "attaching"
    CREATING = "creating"
    WAITING = "waiting"  # READY: nothing under way until it is wanted running
    STARTING = "starting"
    PROBING = "probing"  # runs, not yet known to be healthy
    RUNNING = "running"
    STOPPING = "stopping"
    RELEASING = "releasing"  # detaches the sandbox
    REMOVING = "removing"  # removes the container
    ENDED = "ended"
    GONE = "gone"


# ---------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Wanted:
    """The managers want this state."""

    state: TaskState


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The task is no longer assigned to this node."""


@dataclass(frozen=True, slots=True)
class Progress:
    message: str


@dataclass(frozen=True, slots=True)
class ImageReady:
    pass


@dataclass(frozen=True, slots=True)
class Attached:
    netns_path: str


@dataclass(frozen=True, slots=True)
class Created:
    container_id: str


@dataclass(frozen=True, slots=True)
class Started:
    pid: int
    probed: bool  # has a health check


@dataclass(frozen=True, slots=True)
class Healthy:
    pass


@dataclass(frozen=True, slots=True)
class Unhealthy:
    reason: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The container's process has ended, whoever ended it."""

    exit_code: int
    oom_killed: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Stopped:
    """We ended it."""

    exit: Exited


@dataclass(frozen=True, slots=True)
class Released:
    pass


@dataclass(frozen=True, slots=True)
class Removed:
    pass


@dataclass(frozen=True, slots=True)
class Failed:
    """The work under way did not succeed."""

    reason: str


Event = (
    Wanted
    | Forgotten
    | Progress
    | ImageReady
    | Attached
    | Created
    | Started
    | Healthy
    | Unhealthy
    | Exited
    | Stopped
    | Released
    | Removed
    | Failed
)


# ---------------------------------------------------------------- effects


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the managers; the shell stamps the time."""

    status: TaskStatus


@dataclass(frozen=True, slots=True)
class FetchImage:
    """Outcome: ImageReady or Failed; Progress meanwhile."""


@dataclass(frozen=True, slots=True)
class Attach:
    """Outcome: Attached or Failed."""


@dataclass(frozen=True, slots=True)
class Create:
    """Outcome: Created or Failed."""

    netns_path: str


@dataclass(frozen=True, slots=True)
class Start:
    """Outcome: Started or Failed. From then on Exited may come at any time."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Signal, grace, kill. Outcome: Stopped or Failed."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Detach:
    """Outcome: Released or Failed."""


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """By force. Outcome: Removed or Failed."""

    container_id: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Begin the health check; it says Healthy and Unhealthy until EndProbe."""

    container_id: str


@dataclass(frozen=True, slots=True)
class EndProbe:
    pass


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the work under way early; its outcome is Failed."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing of the task is left on this node."""


Effect = (
    Report | FetchImage | Attach | Create | Start | Stop | Detach | RemoveContainer | Probe | EndProbe | Cancel | Forget
)
Work = FetchImage | Attach | Create | Start | Stop | Detach | RemoveContainer
Outcome = tuple["Machine", tuple[Effect, ...]]


@dataclass(frozen=True, slots=True)
class Machine:
    """One task's progress. Replaced, never changed."""

    step: Step = Step.NEW
    reported: TaskStatus = field(default_factory=lambda: TaskStatus(state=TaskState.ASSIGNED))
    wanted: TaskState = TaskState.ASSIGNED
    forgotten: bool = False
    attached: bool = False
    started: bool = False
    container: ContainerStatus = field(default_factory=ContainerStatus)
    exit: Exited | None = None
    final: TaskState | None = None  # how it ends, once that is decided
    err: str = ""

    @property
    def is_ending(self) -> bool:
        """Whether the task should not run. A wanted COMPLETE is a job's: it runs until it ends by itself."""
        return self.forgotten or self.wanted >= TaskState.SHUTDOWN


def handle(machine: Machine, event: Event) -> Outcome:
    """What follows from the event."""
    if isinstance(event, Wanted):
        machine = replace(machine, wanted=max(machine.wanted, event.state))
    elif isinstance(event, Forgotten):
        machine = replace(machine, forgotten=True)
    action = TABLE.get((machine.step, type(event)))
    return action(machine, event) if action is not None else (machine, ())


# ---------------------------------------------------------------- towards RUNNING


def _accept(machine: Machine, _: Event) -> Outcome:
    if machine.is_ending:
        return _finish(machine, TaskState.SHUTDOWN)
    machine, accepted = _report(machine, TaskState.ACCEPTED, "accepted")
    machine, preparing = _report(machine, TaskState.PREPARING, "preparing")
    return replace(machine, step=Step.FETCHING), (*accepted, *preparing, FetchImage())


def _cancel_if_ending(machine: Machine, _: Event) -> Outcome:
    return machine, ((Cancel(),) if machine.is_ending else ())


def _show_progress(machine: Machine, event: Event) -> Outcome:
    assert isinstance(event, Progress)
    return _report(machine, TaskState.PREPARING, event.message)


def _attach(machine: Machine, _: Event) -> Outcome:
    if machine.is_ending:
        return _finish(machine, TaskState.SHUTDOWN)
    # Marked before it is done: what a failed attach left behind is detached as well.
    return replace(machine, step=Step.ATTACHING, attached=True), (Attach(),)


def _create(machine: Machine, event: Event) -> Outcome:
    assert isinstance(event, Attached)
    if machine.is_ending:
        return _finish(machine, TaskState.SHUTDOWN)
    return replace(machine, step=Step.CREATING), (Create(event.netns_path),)


def _ready(machine: Machine, event: Event) -> Outcome:
    assert isinstance(event, Created)
    machine = replace(machine, step=Step.WAITING, container=ContainerStatus(container_id=event.container_id))
    machine, ready = _report(machine, TaskState.READY, "prepared")
    machine, then = _start_if_wanted(machine, event)
    return machine, (*ready, *then)


def _start_if_wanted(machine: Machine, _: Event) -> Outcome:
    if machine.is_ending:
        return _finish(machine, TaskState.SHUTDOWN)
    if machine.wanted < TaskState.RUNNING:
        return machine, ()
    machine, starting = _report(machine, TaskState.STARTING, "starting")
    return replace(machine, step=Step.STARTING), (*starting, Start(machine.container.container_id))


def _remember_exit(machine: Machine, event: Event) -> Outcome:
    assert isinstance(event, Exited)
    return replace(machine, exit=event), ()


def _started(machine: Machine, event: Event) -> Outcome:
    assert isinstance(event, Started)
    container = ContainerStatus(container_id=machine.container.container_id, pid=event.pid)
    machine = replace(machine, started=True, container=container)
    if machine.exit is not None:  # it ended before we were told that it had started
        return _ended_by_itself(machine, machine.exit)
    if machine.is_ending:
        return _stop(machine, TaskState.SHUTDOWN, "")
    if not event.probed:
        return _running(machine, event)
    machine = _with_health(machine, HealthState.STARTING)
    machine, waiting = _report(machine, TaskState.STARTING, "starting: waiting for the health check")
    return replace(machine, step=Step.PROBING), (*waiting, Probe(container.container_id))


def _healthy(machine: Machine, event: Event) -> Outcome:
    return _running(_with_health(machine, HealthState.HEALTHY), event)


def _with_health(machine: Machine, health: HealthState) -> Machine:
    return replace(machine, container=structs.replace(machine.container, health=health))


def _running(machine: Machine, _: Event) -> Outcome:
    return _report(replace(machine, step=Step.RUNNING), TaskState.RUNNING, "started")


# ---------------------------------------------------------------- towards the end


def _rejected(machine: Machine, event: Event) -> Outcome:
    """Before it was started nothing has failed but this node's try: REJECTED."""
    assert isinstance(event, Failed)
    if machine.is_ending:
        return _finish(machine, TaskState.SHUTDOWN)
    return _finish(machine, TaskState.REJECTED, event.reason)


def _start_failed(machine: Machine, event: Event) -> Outcome:
    assert isinstance(event, Failed)
    return _finish(machine, TaskState.FAILED, event.reason)


def _stop_if_ending(machine: Machine, _: Event) -> Outcome:
    return _stop(machine, TaskState.SHUTDOWN, "") if machine.is_ending else (machine, ())


def _stop_unhealthy(machine: Machine, event: Event) -> Outcome:
    assert isinstance(event, Unhealthy)
    machine = _with_health(machine, HealthState.UNHEALTHY)
    return _stop(machine, TaskState.FAILED, f"unhealthy container: {event.reason}")


def _stop(machine: Machine, final: TaskState, err: str) -> Outcome:
    effects: tuple[Effect, ...] = (EndProbe(), Stop(machine.container.container_id))
    return replace(machine, step=Step.STOPPING, final=final, err=err), effects


def _ended_by_itself(machine: Machine, event: Event) -> Outcome:
    assert isinstance(event, Exited)
    machine = _with_exit(machine, event)
    if event.exit_code == 0 and not event.error:
        return _finish(machine, TaskState.COMPLETE)
    return _finish(machine, TaskState.FAILED, _exit_reason(event))


def _exit_reason(event: Exited) -> str:
    if event.error:
        return event.error
    killed = ": out of memory" if event.oom_killed else ""
    return f"task: non-zero exit ({event.exit_code}){killed}"


def _stopped(machine: Machine, event: Event) -> Outcome:
    assert isinstance(event, Stopped)
    assert machine.final is not None
    return _finish(_with_exit(machine, event.exit), machine.final, machine.err)


def _not_stopped(machine: Machine, event: Event) -> Outcome:
    assert isinstance(event, Failed)
    assert machine.final is not None
    # From here on it counts as never started, so that letting go removes it: whatever runs after its end is wrong.
    return _finish(replace(machine, started=False), machine.final, machine.err or event.reason)


def _with_exit(machine: Machine, event: Exited) -> Machine:
    container = ContainerStatus(
        container_id=machine.container.container_id,
        exit_code=event.exit_code,
        oom_killed=event.oom_killed,
        health=machine.container.health,
    )
    return replace(machine, exit=event, container=container)


def _finish(machine: Machine, final: TaskState, err: str = "") -> Outcome:
    probe: tuple[Effect, ...] = (EndProbe(),) if machine.step in (Step.PROBING, Step.RUNNING) else ()
    machine, effects = _let_go(replace(machine, final=final, err=err))
    return machine, (*probe, *effects)


def _let_go(machine: Machine) -> Outcome:
    """The next thing to release; when nothing is left, the report of the end.

    The report comes last, since with it the managers may give the task's addresses to another.
    """
    if machine.attached:
        return replace(machine, step=Step.RELEASING), (Detach(),)
    if machine.container.container_id and not machine.started:
        return replace(machine, step=Step.REMOVING), (RemoveContainer(machine.container.container_id),)
    assert machine.final is not None
    machine, report = _report(machine, machine.final, _FINAL_MESSAGES[machine.final], machine.err)
    machine, then = _forget_if_forgotten(replace(machine, step=Step.ENDED), Forgotten())
    return machine, (*report, *then)


_FINAL_MESSAGES = {
    TaskState.COMPLETE: "finished",
    TaskState.SHUTDOWN: "shutdown",
    TaskState.FAILED: "failed",
    TaskState.REJECTED: "rejected",
}


def _released(machine: Machine, _: Event) -> Outcome:
    """Also when detaching failed: the overlay drops what no sandbox of ours claims at the next start."""
    return _let_go(replace(machine, attached=False))


def _removed(machine: Machine, _: Event) -> Outcome:
    """Also when removing failed: a container without a task is removed at the next start."""
    return _let_go(replace(machine, container=_without_id(machine.container)))


def _without_id(container: ContainerStatus) -> ContainerStatus:
    """The same outcome of a container that is no longer there."""
    return structs.replace(container, container_id="", pid=0)


def _forget_if_forgotten(machine: Machine, _: Event) -> Outcome:
    if not machine.forgotten:
        return machine, ()
    if machine.container.container_id:
        # From here on it counts as never started, so that letting go removes it.
        return _let_go(replace(machine, started=False))
    return replace(machine, step=Step.GONE), (Forget(),)


def _report(machine: Machine, state: TaskState, message: str, err: str = "") -> Outcome:
    """Only forward, and only what is news."""
    container = machine.container if machine.container.container_id or state.is_terminal else None
    if container == ContainerStatus():
        container = None
    status = TaskStatus(state=state, message=message, err=err, container=container)
    if state < machine.reported.state or machine.reported.state.is_terminal:
        return machine, ()
    if status == machine.reported:
        return machine, ()
    return replace(machine, reported=status), (Report(status),)


# ---------------------------------------------------------------- after a restart of the daemon


@dataclass(frozen=True, slots=True)
class Found:
    """The task's container as it was found at a restart of the daemon."""

    container_id: str
    has_started: bool


def resume(reported: TaskStatus, found: Found | None) -> Outcome:
    """The machine of a task that was known before the restart. What it reported stands.

    The runner then says Started (and Exited, if it has) of a found container that has started, and removes one that has
    not before it resumes the task without it.
    """
    reported = _without_time(reported)
    container = ContainerStatus(container_id=found.container_id) if found is not None else ContainerStatus()
    if reported.state.is_terminal:
        known = reported.container or ContainerStatus()
        kept = ContainerStatus(
            container_id=container.container_id, exit_code=known.exit_code, oom_killed=known.oom_killed
        )
        ended = Machine(step=Step.ENDED, reported=reported, final=reported.state, container=kept, started=True)
        return ended, ()
    if found is not None and found.has_started:
        return Machine(step=Step.STARTING, reported=reported, container=container, attached=True), ()
    if reported.state >= TaskState.RUNNING:
        lost = Machine(reported=reported, attached=True, started=True)
        return _finish(lost, TaskState.FAILED, "the container is gone: the node was restarted")
    return Machine(reported=reported), ()


def _without_time(status: TaskStatus) -> TaskStatus:
    return TaskStatus(state=status.state, message=status.message, err=status.err, container=status.container)


# ---------------------------------------------------------------- the table

_Action = Callable[[Machine, Event], Outcome]

TABLE: dict[tuple[Step, type[Event]], _Action] = {
    (Step.NEW, Wanted): _accept,
    (Step.NEW, Forgotten): _accept,
    (Step.FETCHING, Wanted): _cancel_if_ending,
    (Step.FETCHING, Forgotten): _cancel_if_ending,
    (Step.FETCHING, Progress): _show_progress,
    (Step.FETCHING, ImageReady): _attach,
    (Step.FETCHING, Failed): _rejected,
    (Step.ATTACHING, Attached): _create,
    (Step.ATTACHING, Failed): _rejected,
    (Step.CREATING, Created): _ready,
    (Step.CREATING, Failed): _rejected,
    (Step.WAITING, Wanted): _start_if_wanted,
    (Step.WAITING, Forgotten): _start_if_wanted,
    (Step.STARTING, Exited): _remember_exit,
    (Step.STARTING, Started): _started,
    (Step.STARTING, Failed): _start_failed,
    (Step.PROBING, Healthy): _healthy,
    (Step.PROBING, Unhealthy): _stop_unhealthy,
    (Step.PROBING, Exited): _ended_by_itself,
    (Step.PROBING, Wanted): _stop_if_ending,
    (Step.PROBING, Forgotten): _stop_if_ending,
    (Step.RUNNING, Unhealthy): _stop_unhealthy,
    (Step.RUNNING, Exited): _ended_by_itself,
    (Step.RUNNING, Wanted): _stop_if_ending,
    (Step.RUNNING, Forgotten): _stop_if_ending,
    (Step.STOPPING, Stopped): _stopped,
    (Step.STOPPING, Failed): _not_stopped,
    (Step.RELEASING, Released): _released,
    (Step.RELEASING, Failed): _released,
    (Step.REMOVING, Removed): _removed,
    (Step.REMOVING, Failed): _removed,
    (Step.ENDED, Forgotten): _forget_if_forgotten,
}

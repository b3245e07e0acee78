"""Performs what the task machines decide: one piece of work per task at a time, its outcome handed back as an event.

Keeps the machines of all tasks of this node. Never decides what a task does next. Starting is bounded (a host that
starts a hundred containers at once starts them no sooner), stopping is not: it mostly waits.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import assert_never

import msgspec

from pyswarm_common.errors import Exhausted, PyswarmError
from pyswarm_common.model import HealthCheck, Task, TaskState, TaskStatus
from pyswarm_runtime.types import ContainerState

from .core import task_machine as tm
from .core.assembly import (
    LABEL_TASK_ID,
    container_config,
    has_host_ports,
    open_files,
    own_address,
    sandbox,
    stop_grace_s,
    uses_host_network,
)
from .core.health import Command, Health, ProbePlan, after_probe, is_unhealthy, next_delay_s, probe_plan
from .images import ImageFetcher
from .lingering import linger
from .networks import Networks
from .ports import ContainerRuntime, ImageStore, Overlay
from .probes import Prober
from .task_files import TaskFiles

_log = logging.getLogger(__name__)

_MAX_STARTS = 8
_MAX_HEALTH_OUTPUT = 500


@dataclass(slots=True)
class _Entry:
    """One task and what is under way for it."""

    task: Task
    machine: tm.Machine
    work: asyncio.Task[None] | None = None
    is_cancelled: bool = False
    probe: asyncio.Task[None] | None = None
    plan: ProbePlan | None = None
    waiters: list[asyncio.Future[None]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Host:
    """What tasks are made with."""

    runtime: ContainerRuntime
    images: ImageStore
    overlay: Overlay
    networks: Networks
    fetcher: ImageFetcher
    files: TaskFiles


class Tasks:
    """The tasks of this node."""

    def __init__(
        self,
        host: Host,
        *,
        on_status: Callable[[str, TaskStatus], None],
        on_gone: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._runtime = host.runtime
        self._images = host.images
        self._overlay = host.overlay
        self._networks = host.networks
        self._fetcher = host.fetcher
        self._files = host.files
        self._on_status = on_status
        self._on_gone = on_gone
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._by_container: dict[str, str] = {}
        self._starts = asyncio.Semaphore(_MAX_STARTS)
        self._prober = Prober()
        self._is_closing = False
        self._ulimits = (open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._entries

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._entries)

    @property
    def is_busy(self) -> bool:
        """Some task is on its way to running, or from it."""
        return any(entry.work is not None for entry in self._entries.values())

    def get(self, task_id: str) -> Task | None:
        entry = self._entries.get(task_id)
        return entry.task if entry is not None else None

    def container_of(self, task_id: str) -> str | None:
        entry = self._entries.get(task_id)
        return (entry.machine.container.container_id or None) if entry is not None else None

    def containers_of(self, service_ids: Container[str]) -> dict[str, str]:
        """Running containers by task, of these services."""
        return {
            task_id: entry.machine.container.container_id
            for task_id, entry in self._entries.items()
            if entry.task.service_id in service_ids
            and entry.machine.container.container_id
            and entry.machine.step is tm.Step.RUNNING
        }

    # ---------------------------------------------------------------- what comes in

    def update(self, task: Task) -> None:
        """An assigned task, new or with another desired state."""
        entry = self._entries.get(task.id)
        if entry is None:
            machine, effects = tm.resume(task.status, None)
            entry = self._entries[task.id] = _Entry(task, machine)
            self._perform_all(entry, effects)
        if not task.status.state.is_terminal:  # of an ended task no specification is told
            entry.task = task
        self._post(entry, _wanted(task))

    def forget(self, task_id: str) -> None:
        """No longer assigned: stop it and leave nothing of it."""
        entry = self._entries.get(task_id)
        if entry is not None:
            self._post(entry, tm.Forgotten())

    async def wait_gone(self) -> None:
        """Until no task is left."""
        while self._entries:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            next(iter(self._entries.values())).waiters.append(future)
            await future

    def resume(self, task: Task, reported: TaskStatus, state: ContainerState | None) -> None:
        """A task known before the daemon's restart. Its sandbox is attached again already if `state` has started."""
        found = tm.Found(state.id, has_started=True) if state is not None else None
        machine, effects = tm.resume(reported, found)
        entry = self._entries[task.id] = _Entry(task, machine)
        if state is not None:
            self._by_container[state.id] = task.id
        self._perform_all(entry, effects)
        if machine.step is tm.Step.STARTING and state is not None:
            entry.work = asyncio.create_task(self._readopt(entry, state))
        else:
            self._post(entry, _wanted(task))

    async def _readopt(self, entry: _Entry, state: ContainerState) -> None:
        try:
            entry.plan = await self._probe_plan(entry.task)
        except PyswarmError as error:  # its image was removed by force: it runs on, without a health check
            _log.warning("task %s: its health check is not known any more: %s", entry.task.id, error)
        entry.work = None
        if state.status == "exited":
            self._post(entry, _exited(state))
        probed = entry.plan is not None
        self._post(entry, tm.Started(state.pid, probed))
        self._post(entry, _wanted(entry.task))

    async def run_exits(self) -> None:
        """Hand every container's end to its task, also those that ended while nobody listened."""
        while True:
            exits = self._runtime.exits()
            for state in await self._runtime.list():
                if state.status == "exited":
                    self._on_exit(state)
            try:
                async for state in exits:
                    self._on_exit(state)
            except Exhausted as error:
                _log.warning("%s", error)
                continue
            return

    def _on_exit(self, state: ContainerState) -> None:
        entry = self._entries.get(self._by_container.get(state.id, ""))
        if entry is not None:
            self._post(entry, _exited(state))

    async def close(self) -> None:
        """Stop performing; containers are left as they are."""
        self._is_closing = True
        running = [work for entry in self._entries.values() for work in (entry.work, entry.probe) if work is not None]
        for work in running:
            work.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    # ---------------------------------------------------------------- the machine's turn

    def _post(self, entry: _Entry, event: tm.Event) -> None:
        if self._is_closing:
            return
        entry.machine, effects = tm.handle(entry.machine, event)
        self._perform_all(entry, effects)

    def _perform_all(self, entry: _Entry, effects: tuple[tm.Effect, ...]) -> None:
        for effect in effects:
            self._perform(entry, effect)

    def _perform(self, entry: _Entry, effect: tm.Effect) -> None:
        match effect:
            case tm.Report(status):
                self._on_status(entry.task.id, msgspec.structs.replace(status, timestamp=self._clock()))
            case tm.Cancel():
                entry.is_cancelled = True
                if entry.work is not None:
                    entry.work.cancel()
            case tm.Probe(container_id):
                entry.probe = asyncio.create_task(self._run_probe(entry, container_id))
            case tm.EndProbe():
                if entry.probe is not None:
                    entry.probe.cancel()
                    entry.probe = None
            case tm.Forget():
                self._gone(entry)
            case _:
                assert entry.work is None, f"two pieces of work for task {entry.task.id}: {effect}"
                entry.is_cancelled = False
                entry.work = asyncio.create_task(self._run_work(entry, effect))

    def _gone(self, entry: _Entry) -> None:
        self._entries.pop(entry.task.id, None)
        for future in entry.waiters:
            if not future.done():
                future.set_result(None)
        self._on_gone(entry.task.id)

    async def _run_work(self, entry: _Entry, work: tm.Work) -> None:
        try:
            event = await self._outcome(entry, work)
        except asyncio.CancelledError:
            if not entry.is_cancelled:
                raise
            event = tm.Failed("cancelled")
        except PyswarmError as error:
            event = tm.Failed(str(error))
        except Exception as error:
            _log.exception("task %s: %s", entry.task.id, type(work).__name__)
            event = tm.Failed(f"internal error: {error}")
        if isinstance(event, tm.Failed) and not entry.is_cancelled:
            _log.warning("task %s (%s): %s: %s", entry.task.id, entry.task.name, type(work).__name__, event.reason)
        entry.work = None
        self._post(entry, event)

    # ---------------------------------------------------------------- the work

    async def _outcome(self, entry: _Entry, work: tm.Work) -> tm.Event:
        match work:
            case tm.FetchImage():
                container = entry.task.spec.container
                await self._fetcher.ensure(
                    container.image, lambda message: self._post(entry, tm.Progress(message)), container.registry_auth
                )
                return tm.ImageReady()
            case tm.Attach():
                async with self._starts:
                    return tm.Attached(await self._attach(entry.task))
            case tm.Create(netns_path):
                async with self._starts:
                    return await self._create(entry, netns_path)
            case tm.Start(container_id):
                async with self._starts:
                    await self._publish(entry.task)
                    state = await self._runtime.start(container_id)
                return tm.Started(state.pid, probed=entry.plan is not None)
            case tm.Stop(container_id):
                return await self._stop(entry, container_id)
            case tm.Detach():
                await self._files.remove(entry.task.id)  # its container may stay for long, its secrets may not
                await self._detach(entry.task)
                return tm.Released()
            case tm.RemoveContainer(container_id):
                await self._runtime.remove(container_id, force=True)
                await self._files.remove(entry.task.id)
                self._by_container.pop(container_id, None)
                return tm.Removed()
            case _:
                assert_never(work)

    async def _attach(self, task: Task) -> str:
        if uses_host_network(task):
            return ""
        return await self._overlay.attach(sandbox(task, self._networks.internal_ids, is_published=False))

    async def _publish(self, task: Task) -> None:
        """Its host ports, which its predecessor had until now."""
        if has_host_ports(task) and not uses_host_network(task):
            await self._overlay.attach(sandbox(task, self._networks.internal_ids))

    async def _detach(self, task: Task) -> None:
        if not uses_host_network(task):
            await self._overlay.detach(task.id)
            await self._networks.sweep()

    async def _create(self, entry: _Entry, netns_path: str) -> tm.Created:
        entry.plan = await self._probe_plan(entry.task)
        prepared = await self._files.prepare(entry.task)
        config = container_config(prepared.task, netns_path, self._ulimits, prepared.mounts, prepared.private_env)
        container_id = await self._runtime.create(config)
        self._by_container[container_id] = entry.task.id
        return tm.Created(container_id)

    async def _stop(self, entry: _Entry, container_id: str) -> tm.Stopped:
        if entry.machine.final is TaskState.SHUTDOWN and not uses_host_network(entry.task):
            await self._linger(entry.task)
        state = await self._runtime.stop(container_id, stop_grace_s(entry.task))
        return tm.Stopped(_exited(state))

    async def _linger(self, task: Task) -> None:
        """Whatever keeps us from counting its connections: the task is to stop."""
        by_name = self._networks.is_found_by_name(task)
        try:
            await linger(lambda: self._overlay.connections(task.id), stop_grace_s(task), by_name=by_name)
        except (PyswarmError, OSError) as error:
            _log.warning("task %s: its connections cannot be counted: %s", task.id, error)

    async def _probe_plan(self, task: Task) -> ProbePlan | None:
        declared = (await self._images.inspect(task.spec.container.image)).config.healthcheck
        image = None
        if declared is not None:
            image = HealthCheck(
                test=declared.test,
                interval_s=declared.interval_s,
                timeout_s=declared.timeout_s,
                retries=declared.retries,
                start_period_s=declared.start_period_s,
                start_interval_s=declared.start_interval_s,
            )
        return probe_plan(task.spec.container.healthcheck, image)

    # ---------------------------------------------------------------- health

    async def _run_probe(self, entry: _Entry, container_id: str) -> None:
        plan = entry.plan
        assert plan is not None
        monotonic = asyncio.get_running_loop().time
        health = Health(started_at=monotonic())
        while True:
            await asyncio.sleep(next_delay_s(plan, health, monotonic()))
            succeeded, output = await self._ask(entry, container_id, plan)
            was_healthy = health.healthy
            health = after_probe(plan, health, succeeded=succeeded, now=monotonic())
            if health.healthy and not was_healthy:
                self._post(entry, tm.Healthy())
            if is_unhealthy(plan, health):
                self._post(entry, tm.Unhealthy(output or "the health check failed"))
                return

    async def _ask(self, entry: _Entry, container_id: str, plan: ProbePlan) -> tuple[bool, str]:
        if not isinstance(plan.what, Command):
            pid = entry.machine.container.pid
            return await self._prober.ask(plan.what, pid, own_address(entry.task), plan.timeout_s)
        try:
            result = await self._runtime.exec(container_id, plan.what.argv, timeout_s=plan.timeout_s)
        except PyswarmError as error:
            return False, str(error)
        output = result.output[:_MAX_HEALTH_OUTPUT].decode(errors="replace").strip()
        if result.timed_out:
            return False, f"health check exceeded timeout ({plan.timeout_s:g}s)"
        return result.exit_code == 0, output


def _wanted(task: Task) -> tm.Wanted:
    """What the managers know to have ended does not run, whatever this node's disk says (it may be an old copy)."""
    return tm.Wanted(TaskState.SHUTDOWN if task.status.state.is_terminal else task.desired_state)


def _exited(state: ContainerState) -> tm.Exited:
    exit_code = state.exit_code if state.exit_code is not None else 255
    return tm.Exited(exit_code, state.oom_killed, state.error)


def task_id_of(state: ContainerState) -> str:
    """Empty for a container that is no task's."""
    return state.config.labels.get(LABEL_TASK_ID, "")


def has_started(state: ContainerState) -> bool:
    return state.status in ("running", "paused", "exited") and state.started_at is not None

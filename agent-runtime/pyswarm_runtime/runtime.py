"""Containers on one host: the asynchronous face of the runtime.

Decides what a container's state is and which step may follow; the blocking steps themselves are the launcher's. One
lock per container keeps its steps apart; containers do not wait for one another but in the bounded pool. A step that
has begun is finished even if its caller goes away. Exits are noticed through a pidfd of each monitor: nothing is
polled.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import shutil
import signal as signals
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pyswarm_common.errors import FailedPrecondition, NotFound, Unsupported
from pyswarm_runtime import cgroups, processes
from pyswarm_runtime.access import ContainerAccess
from pyswarm_runtime.container_store import ContainerRecord, ContainerStore, StoredState
from pyswarm_runtime.etcfiles import hosts_file
from pyswarm_runtime.execution import execute
from pyswarm_runtime.exits import ExitBroadcast
from pyswarm_runtime.images import ContainerUse, ImageStore
from pyswarm_runtime.launcher import Launched, Launcher
from pyswarm_runtime.log_rotation import LOOK_EVERY_S, rotate_logs
from pyswarm_runtime.logs import read_logs
from pyswarm_runtime.oci.spec import validate
from pyswarm_runtime.ocirun import OciRuntime
from pyswarm_runtime.preflight import check_host
from pyswarm_runtime.registry import Container, ContainerRegistry
from pyswarm_runtime.types import (
    MIB,
    ContainerConfig,
    ContainerState,
    ExecResult,
    LogRecord,
    Mount,
    Preflight,
    RuntimeConfig,
)
from pyswarm_runtime.usage import ContainerUsage
from pyswarm_runtime.volumes import VolumeStore, check_volume
from pyswarm_runtime.watcher import DirectoryWatcher

IO_THREADS = 4
KILL_WAIT_S = 30.0
PARALLEL_REMOVALS = 32
PARALLEL_EXECS = 32
OTHER_STEPS = 4  # threads for what is not a start
LOCK_TRIES, LOCK_RETRY_S = 40, 0.05
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Runtime:
    """Make one with `open`; end it with `close`, which leaves the containers running."""

    def __init__(self, config: RuntimeConfig, preflight: Preflight, layout: cgroups.CgroupLayout, lock_fd: int) -> None:
        self.preflight = preflight
        self._config = config
        self._lock_fd = lock_fd
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._io = ThreadPoolExecutor(IO_THREADS, "runtime-io")
        # Starts wait for slots, not in the pool's queue: a hundred of them must not hold up one container's end.
        self._start_slots = asyncio.Semaphore(config.max_parallel_starts)
        self._pool = ThreadPoolExecutor(config.max_parallel_starts + OTHER_STEPS, "runtime-container")
        self._groups = cgroups.ContainerGroups(layout, config.cgroup_parent)
        self._store = ContainerStore(config.root, config.run_dir, config.namespace)
        self._oci = OciRuntime(preflight.oci_runtime_path, config.run_dir / "oci")
        self._containers = ContainerRegistry()
        self._foreign: Sequence[ContainerRecord] = ()
        self.images = ImageStore(config.root, self._io, config.limits, self._image_uses)
        self._volumes = VolumeStore(config.root)
        self._volumes.sweep()
        self._launcher = Launcher(
            preflight, self._store, self._oci, self._groups, self.images.layers.directory, self._volumes
        )
        self.access = ContainerAccess(self._containers, self._store, self._oci, self._launcher)
        self._watcher = DirectoryWatcher()
        self._exits = ExitBroadcast()
        self._exec_slots = asyncio.Semaphore(PARALLEL_EXECS)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = asyncio.Event()

    @classmethod
    async def open(cls, config: RuntimeConfig) -> Runtime:
        """Checks the host, repairs what a crash left half-made, and takes up the containers that still run."""
        layout = cgroups.detect()
        preflight = await asyncio.to_thread(check_host, config, layout)
        for path in (config.root, config.run_dir, config.run_dir / "oci"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        runtime = cls(config, preflight, layout, await _lock(config.root / "lock"))
        try:
            await runtime._open()
        except BaseException:
            await runtime.close()
            raise
        return runtime

    async def _open(self) -> None:
        for record, state in await self._blocking(self._store.load_all):
            self._containers.add(Container(record, state))
        await asyncio.gather(*(self._adopt(container) for container in self._containers))
        self._foreign = await self._blocking(self._store.foreign)
        await self._blocking(self._remove_strangers)
        await self.images.open()
        self._own(self._keep_logs_short())

    def _remove_strangers(self) -> None:
        """What has no record can be served to nobody; if it runs, it is ended."""
        known = {container.id for container in self._containers} | {record.id for record in self._foreign}
        for container_id in self._store.strangers(known, self._oci.root):
            _log.warning("removing what is left of container %s, whose record cannot be read", container_id[:12])
            self._launcher.clean(container_id, is_monitor_gone=False)
            self._remove_files(container_id)
        self._volumes.sweep_anonymous(known)

    async def close(self) -> None:
        """Finishes the steps under way and lets go of everything; the containers run on. May be called again."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._exits.close()
        while self._tasks:
            await asyncio.wait(self._tasks)
        for container in self._containers:
            self._unwatch(container)
            container.ended.set()
        self._watcher.close()
        self._pool.shutdown()
        self._io.shutdown()
        os.close(self._lock_fd)

    async def destroy(self) -> None:
        """Ends and removes all containers, then everything below `root` and `run_dir`, and closes."""
        slots = asyncio.Semaphore(PARALLEL_REMOVALS)

        async def remove(container: Container) -> None:
            async with slots:
                with suppress(NotFound):
                    await self.remove(container.id, force=True)

        outcomes = await asyncio.gather(*map(remove, self._containers), return_exceptions=True)
        await self.close()
        await asyncio.to_thread(self._erase)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _erase(self) -> None:
        self._groups.remove_parent()
        for path in (self._config.root, self._config.run_dir):
            shutil.rmtree(path, ignore_errors=True)

    # What callers ask for

    async def create(self, config: ContainerConfig) -> str:
        """Remembers a container; nothing runs yet. Refused at once if its image or a setting could never work."""
        image = self.images.find(config.image)
        validate(config, image.config)
        for mount in config.mounts:
            check_volume(mount)
        hosts_file("", config.extra_hosts)
        if config.stop_signal:
            processes.parse_signal(config.stop_signal)
        container_id = secrets.token_hex(32)
        record = ContainerRecord(
            id=container_id,
            config=msgspec.structs.replace(config, name=config.name or container_id[:12]),
            image_id=image.id,
            image=image.config,
            diff_ids=image.diff_ids,
            created_at=time.time(),
        )
        container = Container(record, StoredState())
        self._containers.add(container)
        return await self._finish(self._create(container))

    async def _create(self, container: Container) -> str:
        async with container.lock:
            try:
                await self._blocking(lambda: self._store.create(container.record, container.state))
            except OSError as error:
                self._containers.forget(container)
                raise FailedPrecondition(f"the container cannot be stored: {error}") from error
        return container.id

    async def start(self, container_id: str) -> ContainerState:
        """Returns when the container's process runs. Starting a running container does nothing."""
        return await self._finish(self._start(self._containers.find(container_id)))

    async def _start(self, container: Container) -> ContainerState:
        async with container.lock:
            container.check_present()
            if container.is_running:
                return container.public()

            def launch() -> Launched:
                self._store.save(container.id, StoredState(phase="starting", boot_id=self._boot_id))
                return self._launcher.launch(container.record)

            try:
                async with self._start_slots:
                    launched = await self._blocking(launch)
            except Exception as error:
                await self._keep(container, _failed(container.state, error))
                raise _as_refusal(error) from error
            container.ended.clear()
            await self._keep(container, _running(launched, self._boot_id))
            self._watch(container)
            return container.public()

    async def stop(self, container_id: str, grace_s: float = 10.0, signal: str | None = None) -> ContainerState:
        """The stop signal, then SIGKILL after the grace. Stopping a container that does not run does nothing."""
        container = self._containers.find(container_id)
        record = container.record
        number = processes.parse_signal(signal or record.config.stop_signal or record.image.stop_signal or "SIGTERM")
        async with container.lock:  # a start under way is waited for
            container.check_present()
            if container.is_running:
                self._signal(container, number)
        if not await self._ends_within(container, grace_s):
            await self._kill(container)
        return container.public()

    async def kill(self, container_id: str, signal: str = "SIGKILL") -> None:
        container = self._containers.find(container_id)
        number = processes.parse_signal(signal)
        async with container.lock:
            if not container.is_running or not self._signal(container, number):
                raise FailedPrecondition(f"Container {container_id} is not running")

    async def wait(self, container_id: str) -> ContainerState:
        """Returns when no process of it runs; at once for one that was never started."""
        container = self._containers.find(container_id)
        await container.ended.wait()
        return container.public()

    async def remove(self, container_id: str, force: bool = False) -> None:
        """Takes away all of it. `force` kills it first."""
        container = self._containers.find(container_id)
        if container.is_running and not force:
            raise FailedPrecondition(
                f"You cannot remove a running container {container.id}. Stop the container before attempting "
                "removal or force remove"
            )
        await self._finish(self._remove(container, force=force))

    async def _remove(self, container: Container, *, force: bool) -> None:
        if force:
            await self._kill(container)
        async with container.lock:
            container.check_present()
            if container.is_running:
                raise FailedPrecondition(f"Container {container.id} was started meanwhile: stop it first")
            await self._blocking(lambda: self._remove_files(container.id, container.record.config.mounts))
            self._containers.forget(container)

    def _remove_files(self, container_id: str, mounts: tuple[Mount, ...] = ()) -> None:
        self._launcher.snapshot(container_id).remove()
        self._volumes.remove_anonymous(container_id, mounts)
        self._store.remove(container_id)

    async def inspect(self, container_id: str) -> ContainerState:
        return self._containers.find(container_id).public()

    async def list(self, labels: Mapping[str, str] = {}) -> list[ContainerState]:
        """Those that have all of these labels, newest first."""
        return self._containers.states(labels)

    async def usage(self, container_ids: Sequence[str]) -> Mapping[str, ContainerUsage]:
        """What these containers use; without those of which it cannot be told."""

        def read() -> Mapping[str, ContainerUsage]:
            found = {container_id: self._groups.usage(container_id) for container_id in container_ids}
            return {container_id: usage for container_id, usage in found.items() if usage is not None}

        return await self._in_io(read)

    async def exec(
        self, container_id: str, argv: Sequence[str], *, timeout_s: float | None = None, max_output: int = MIB
    ) -> ExecResult:
        """Runs a command in the container. At most 32 at once; the others wait, and the time limit waits with them."""
        container = self._containers.find(container_id)
        async with self._exec_slots:
            if not container.is_running:
                raise FailedPrecondition(f"Container {container_id} is not running")
            bundle = self._store.paths(container.id).bundle
            try:
                return await execute(self._oci, container.id, bundle, argv, timeout_s, max_output)
            except FileNotFoundError as error:  # the bundle goes as the container ends
                raise FailedPrecondition(f"Container {container_id} is not running") from error

    async def logs(
        self, container_id: str, *, follow: bool = False, tail: int | None = None, since: float | None = None
    ) -> AsyncIterator[LogRecord]:
        """`tail` None: from the beginning; `follow` until the container ends or this runtime closes."""
        container = self._containers.find(container_id)
        if container.record.config.log_driver == "none":
            raise Unsupported("configured logging driver does not support reading")
        path = self._store.paths(container.id).log
        if not follow:
            async for record in read_logs(path, self._in_io, tail=tail, since=since, wait_more=None):
                yield record
            return
        with self._watcher.watch(path.parent) as changed:

            async def wait_more() -> bool:
                return await self._changed_or_ended(container, changed)

            async for record in read_logs(path, self._in_io, tail=tail, since=since, wait_more=wait_more):
                yield record

    async def _changed_or_ended(self, container: Container, changed: asyncio.Event) -> bool:
        if container.ended.is_set() or self._closing.is_set():
            return False
        waits = [asyncio.ensure_future(event.wait()) for event in (changed, container.ended, self._closing)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        changed.clear()
        return True

    def exits(self) -> AsyncIterator[ContainerState]:
        """Every exit from this call on. Who falls behind by 4096 is refused with `Exhausted`, and should list anew."""
        return self._exits.subscribe()

    # How containers end

    def _watch(self, container: Container) -> None:
        fd = processes.open_process(container.state.monitor_pid, container.state.monitor_started)
        if fd is None:  # ended already
            self._own(self._on_monitor_end(container))
            return
        container.monitor_fd = fd
        asyncio.get_running_loop().add_reader(fd, self._on_monitor_readable, container)

    def _on_monitor_readable(self, container: Container) -> None:
        self._unwatch(container)
        self._own(self._on_monitor_end(container))

    def _unwatch(self, container: Container) -> None:
        if container.monitor_fd >= 0:
            asyncio.get_running_loop().remove_reader(container.monitor_fd)
            os.close(container.monitor_fd)
            container.monitor_fd = -1

    async def _on_monitor_end(self, container: Container) -> None:
        async with container.lock:
            processes.reap(container.state.monitor_pid)
            try:
                await self._settle(container)
            except Exception:
                # Nobody waits for this step. What is left is cleaned up at the next start or removal.
                _log.exception("container %s ended, but not all of it could be cleaned up", container.id[:12])
            finally:
                container.ended.set()
                self._exits.publish(container.public())

    async def _settle(self, container: Container) -> None:
        """Keeps how it ended, then cleans up. Under the container's lock."""
        ending = await self._blocking(lambda: self._launcher.read_ending(container.id))
        ended = msgspec.structs.replace(
            container.state,
            phase="exited",
            pid=0,
            monitor_pid=0,
            exit_code=ending.exit_code,
            oom_killed=ending.oom_killed,
            error=ending.error,
            finished_at=ending.finished_at,
        )
        # Unless it is kept, the exit file must stay: the next start of the daemon reads it once more.
        is_kept = await self._keep(container, ended)
        await self._blocking(
            lambda: self._launcher.clean(container.id, is_monitor_gone=True, keep_exit_file=not is_kept)
        )

    async def _adopt(self, container: Container) -> None:
        """At the start: takes up what runs, settles what ended, undoes what was half-started."""
        try:
            await self._adopt_or_fail(container)
        except Exception:
            # One container that cannot be repaired must not keep all others from being served.
            _log.exception("container %s could not be taken up", container.id[:12])

    async def _adopt_or_fail(self, container: Container) -> None:
        async with container.lock:
            state = container.state
            if state.phase == "starting":
                await self._blocking(lambda: self._launcher.clean(container.id, is_monitor_gone=False))
                await self._keep(container, StoredState(error="the daemon was stopped while the container started"))
            elif state.phase != "running":
                await self._blocking(lambda: self._launcher.clean(container.id, is_monitor_gone=True))
            elif state.boot_id == self._boot_id and processes.is_alive(state.monitor_pid, state.monitor_started):
                container.ended.clear()
                self._watch(container)
            else:
                await self._settle(container)

    def _signal(self, container: Container, number: int) -> bool:
        return processes.send_signal(container.state.pid, container.state.pid_started, number)

    async def _kill(self, container: Container) -> None:
        async with container.lock:
            if container.is_running:
                self._signal(container, signals.SIGKILL)
        if not await self._ends_within(container, KILL_WAIT_S):
            raise FailedPrecondition(
                f"container {container.id[:12]} does not end {KILL_WAIT_S:.0f} s after SIGKILL: "
                "a process in it may be stuck in the kernel"
            )

    async def _ends_within(self, container: Container, timeout_s: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await container.ended.wait()
        return container.ended.is_set()

    # Inside

    async def _keep_logs_short(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._closing.wait()
            running = [container.record for container in self._containers if container.is_running]
            if running:
                await self._in_io(lambda running=running: rotate_logs(self._store, running))  # type: ignore[misc]

    def _image_uses(self) -> Sequence[ContainerUse]:
        foreign = [ContainerUse(record.id, record.image_id, record.diff_ids, False) for record in self._foreign]
        return [*self._containers.image_uses(), *foreign]

    async def _keep(self, container: Container, state: StoredState) -> bool:
        """In memory always. A full disk must not make us forget what the container does; says if it is on disk too."""
        container.state = state
        try:
            await self._blocking(lambda: self._store.save(container.id, state))
        except OSError as error:
            _log.error("the state of container %s cannot be written: %s", container.id[:12], error)
            return False
        return True

    async def _blocking(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def _in_io(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._io, function)

    def _own(self, step: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _finish(self, step: Coroutine[Any, Any, T]) -> T:
        """The step is finished even if its caller is cancelled."""
        return await asyncio.shield(self._own(step))


async def _lock(path: Path) -> int:
    """One runtime per root; the kernel lets go when the process ends, however it ends.

    Not quite at once: a program that it was just starting holds the descriptor until its exec. So we try for a while.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        await asyncio.sleep(LOCK_RETRY_S)
    os.close(fd)
    raise FailedPrecondition(
        f"{path.parent} is in use by another daemon: stop it first, or choose another state directory"
    )


def _running(launched: Launched, boot_id: str) -> StoredState:
    return StoredState(
        phase="running",
        boot_id=boot_id,
        pid=launched.pid,
        pid_started=launched.pid_started,
        monitor_pid=launched.monitor_pid,
        monitor_started=launched.monitor_started,
        started_at=launched.started_at,
    )


def _failed(previous: StoredState, error: Exception) -> StoredState:
    """Docker's codes: 127 for a program that is not there, 126 for one that may not be run, 128 for the rest."""
    lowered = str(error).lower()
    if any(word in lowered for word in ("no such file", "not found")):
        code = 127
    elif any(word in lowered for word in ("permission denied", "is a directory", "exec format")):
        code = 126
    else:
        code = 128
    return msgspec.structs.replace(previous, phase="created", exit_code=code, error=str(error))


def _as_refusal(error: Exception) -> Exception:
    return FailedPrecondition(f"the container cannot be started: {error}") if isinstance(error, OSError) else error

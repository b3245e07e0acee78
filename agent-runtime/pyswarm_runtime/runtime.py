"""Containers on one host: the asynchronous face of the runtime.

Decides what a container's state is and which step may follow; the blocking steps themselves are the launcher's. One
lock per container keeps its steps apart; containers do not wait for one another but in the bounded pool. A step that
has begun is finished even if its caller goes away. Exits are noticed through a pidfd of each monitor: nothing is
polled.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pyswarm_common.errors import AlreadyExists, Exhausted, FailedPrecondition, InvalidArgument, NotFound
from pyswarm_runtime import cgroups, processes
from pyswarm_runtime.container_store import ContainerRecord, ContainerStore, StoredState, public_state
from pyswarm_runtime.etcfiles import hosts_file
from pyswarm_runtime.execution import execute
from pyswarm_runtime.images import ContainerUse, ImageStore
from pyswarm_runtime.launcher import Launched, Launcher
from pyswarm_runtime.logs import read_logs, rotate
from pyswarm_runtime.oci.spec import validate
from pyswarm_runtime.ocirun import OciRuntime
from pyswarm_runtime.preflight import check_host
from pyswarm_runtime.types import MIB, ContainerConfig, ContainerState, ExecResult, LogRecord, Preflight, RuntimeConfig
from pyswarm_runtime.volumes import VolumeStore
from pyswarm_runtime.watcher import DirectoryWatcher

IO_THREADS = 4
EXIT_QUEUE = 4096
KILL_WAIT_S = 30.0
ROTATE_EVERY_S = 5.0
STOP_PARALLEL = 32
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_REOPEN_LOG = b"2 0 0\n"  # conmon's control message
T = TypeVar("T")


class _Container:
    """One container in memory. `lock` is held during every step that changes it."""

    def __init__(self, record: ContainerRecord, state: StoredState) -> None:
        self.record = record
        self.state = state
        self.lock = asyncio.Lock()
        self.ended = asyncio.Event()  # set while no process of it runs
        self.monitor_fd = -1
        self.is_removed = False

    def public(self) -> ContainerState:
        return public_state(self.record, self.state)


class Runtime:
    """Make one with `open`; end it with `close`, which leaves the containers running."""

    def __init__(self, config: RuntimeConfig, preflight: Preflight, layout: cgroups.CgroupLayout, lock_fd: int) -> None:
        self.preflight = preflight
        self._config = config
        self._lock_fd = lock_fd
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._io = ThreadPoolExecutor(IO_THREADS, "runtime-io")
        self._pool = ThreadPoolExecutor(config.max_parallel_starts, "runtime-container")
        self._groups = cgroups.ContainerGroups(layout, config.cgroup_parent)
        self._store = ContainerStore(config.root, config.run_dir, config.namespace)
        self._oci = OciRuntime(preflight.oci_runtime_path, config.run_dir / "oci")
        self._containers: dict[str, _Container] = {}
        self._foreign: Sequence[ContainerRecord] = ()
        self._names: dict[str, str] = {}
        self.images = ImageStore(config.root, self._io, config.limits, self._image_uses)
        volumes = VolumeStore(config.root)
        self._launcher = Launcher(
            preflight, self._store, self._oci, self._groups, self.images.layers.directory, volumes
        )
        self._watcher = DirectoryWatcher()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._subscribers: set[asyncio.Queue[ContainerState | None]] = set()
        self._closing = asyncio.Event()

    @classmethod
    async def open(cls, config: RuntimeConfig) -> Runtime:
        """Checks the host, repairs what a crash left half-made, and takes up the containers that still run."""
        layout = cgroups.detect()
        preflight = await asyncio.to_thread(check_host, config, layout)
        for path in (config.root, config.run_dir, config.run_dir / "oci"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_fd = _lock(config.root / "lock")
        runtime = cls(config, preflight, layout, lock_fd)
        try:
            await runtime._open()
        except BaseException:
            await runtime.close()
            raise
        return runtime

    async def _open(self) -> None:
        for record, state in await self._blocking(self._store.load_all):
            container = self._containers[record.id] = _Container(record, state)
            container.ended.set()
            self._names[record.config.name] = record.id
        async with asyncio.TaskGroup() as group:
            for container in self._containers.values():
                group.create_task(self._adopt(container))
        self._foreign = await self._blocking(self._store.foreign)
        await self.images.open()
        self._own(self._rotate_logs())

    async def close(self) -> None:
        """Finishes the steps under way and lets go of everything; the containers run on."""
        self._closing.set()
        for queue in self._subscribers:
            _put_last(queue, None)
        while self._tasks:
            await asyncio.wait(self._tasks)
        for container in self._containers.values():
            self._unwatch(container)
            container.ended.set()
        self._watcher.close()
        self._pool.shutdown()
        self._io.shutdown()
        os.close(self._lock_fd)

    async def destroy(self) -> None:
        """Ends and removes all containers, then everything below `root` and `run_dir`, and closes."""
        slots = asyncio.Semaphore(STOP_PARALLEL)

        async def remove(container_id: str) -> None:
            async with slots:
                with suppress(NotFound):
                    await self.remove(container_id, force=True)

        async with asyncio.TaskGroup() as group:
            for container_id in list(self._containers):
                group.create_task(remove(container_id))
        await self.close()
        await asyncio.to_thread(self._erase)

    def _erase(self) -> None:
        self._groups.remove_parent()
        for path in (self._config.root, self._config.run_dir):
            shutil.rmtree(path, ignore_errors=True)

    # Containers

    async def create(self, config: ContainerConfig) -> str:
        """Remembers a container; nothing runs yet. Refused at once if its image or a setting could never work."""
        image = self.images.find(config.image)
        validate(config, image.config)
        hosts_file("", config.extra_hosts)
        if config.stop_signal:
            processes.parse_signal(config.stop_signal)
        container_id = secrets.token_hex(32)
        name = config.name or container_id[:12]
        self._reserve_name(name, container_id)
        record = ContainerRecord(
            id=container_id,
            config=msgspec.structs.replace(config, name=name),
            image_id=image.id,
            image=image.config,
            diff_ids=image.diff_ids,
            created_at=time.time(),
        )
        container = self._containers[container_id] = _Container(record, StoredState())
        container.ended.set()
        try:
            await self._blocking(lambda: self._store.create(record, container.state))
        except BaseException:
            self._forget(container)
            raise
        return container_id

    def _reserve_name(self, name: str, container_id: str) -> None:
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        if (owner := self._names.get(name)) is not None:
            raise AlreadyExists(
                f'Conflict. The container name "{name}" is already in use by container "{owner}": '
                "remove (or rename) that container to be able to reuse that name"
            )
        self._names[name] = container_id

    async def start(self, container_id: str) -> ContainerState:
        """Returns when the container's process runs. Starting a running container does nothing."""
        return await self._finish(self._start(self._find(container_id)))

    async def _start(self, container: _Container) -> ContainerState:
        async with container.lock:
            self._check_present(container)
            if container.state.phase == "running":
                return container.public()
            previous = container.state

            def launch() -> Launched:
                self._store.save(container.record.id, StoredState(phase="starting", boot_id=self._boot_id))
                return self._launcher.launch(container.record)

            try:
                launched = await self._blocking(launch)
            except Exception as error:
                await self._keep(container, _failed(previous, error))
                raise _as_refusal(error) from error
            container.ended.clear()
            await self._keep(container, _running(launched, self._boot_id))
            self._watch(container)
            return container.public()

    async def stop(self, container_id: str, grace_s: float = 10.0, signal: str | None = None) -> ContainerState:
        """The stop signal, then SIGKILL after the grace. Stopping a container that does not run does nothing."""
        container = self._find(container_id)
        async with container.lock:
            self._check_present(container)
        if container.state.phase != "running":
            return container.public()
        record = container.record
        name = signal or record.config.stop_signal or record.image.stop_signal or "SIGTERM"
        self._signal(container, processes.parse_signal(name))
        if not await self._ends_within(container, grace_s):
            await self._kill(container)
        return container.public()

    async def kill(self, container_id: str, signal: str = "SIGKILL") -> None:
        container = self._find(container_id)
        number = processes.parse_signal(signal)
        async with container.lock:
            if container.state.phase != "running" or not self._signal(container, number):
                raise FailedPrecondition(f"Container {container_id} is not running")

    async def wait(self, container_id: str) -> ContainerState:
        """Returns when no process of it runs; at once for one that was never started."""
        container = self._find(container_id)
        await container.ended.wait()
        return container.public()

    async def remove(self, container_id: str, force: bool = False) -> None:
        """Takes away all of it. `force` kills it first."""
        container = self._find(container_id)
        if container.state.phase == "running":
            if not force:
                raise FailedPrecondition(
                    f"You cannot remove a running container {container.record.id}. Stop the container before "
                    "attempting removal or force remove"
                )
            await self._kill(container)
        await self._finish(self._remove(container))

    async def _remove(self, container: _Container) -> None:
        async with container.lock:
            if container.is_removed:
                return
            if container.state.phase == "running":
                raise FailedPrecondition(f"Container {container.record.id} was started again: stop it first")

            def remove() -> None:
                self._launcher.snapshot(container.record.id).remove()
                self._store.remove(container.record.id)

            await self._blocking(remove)
            container.is_removed = True
            self._forget(container)

    async def inspect(self, container_id: str) -> ContainerState:
        return self._find(container_id).public()

    async def list(self, labels: Mapping[str, str] = {}) -> list[ContainerState]:
        """Those that have all of these labels, newest first."""
        wanted = labels.items()
        found = [entry.public() for entry in self._containers.values() if wanted <= entry.record.config.labels.items()]
        return sorted(found, key=lambda state: (-state.created_at, state.id))

    async def exec(
        self, container_id: str, argv: Sequence[str], *, timeout_s: float | None = None, max_output: int = MIB
    ) -> ExecResult:
        container = self._find(container_id)
        if container.state.phase != "running":
            raise FailedPrecondition(f"Container {container_id} is not running")
        bundle = self._store.paths(container.record.id).bundle
        try:
            return await execute(self._oci, container.record.id, bundle, argv, timeout_s, max_output)
        except FileNotFoundError as error:  # the bundle goes as the container ends
            raise FailedPrecondition(f"Container {container_id} is not running") from error

    async def logs(
        self, container_id: str, *, follow: bool = False, tail: int | None = None, since: float | None = None
    ) -> AsyncIterator[LogRecord]:
        """`tail` None: from the beginning; `follow` until the container ends or this runtime closes."""
        container = self._find(container_id)
        path = self._store.paths(container.record.id).log
        if not follow:
            async for record in read_logs(path, self._io_run, tail=tail, since=since, wait_more=None):
                yield record
            return
        with self._watcher.watch(path.parent) as changed:

            async def wait_more() -> bool:
                return await self._changed_or_ended(container, changed)

            async for record in read_logs(path, self._io_run, tail=tail, since=since, wait_more=wait_more):
                yield record

    async def _changed_or_ended(self, container: _Container, changed: asyncio.Event) -> bool:
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
        queue: asyncio.Queue[ContainerState | None] = asyncio.Queue(EXIT_QUEUE)
        self._subscribers.add(queue)
        return self._exits(queue)

    async def _exits(self, queue: asyncio.Queue[ContainerState | None]) -> AsyncIterator[ContainerState]:
        try:
            while (state := await queue.get()) is not None:
                yield state
            if not self._closing.is_set():
                raise Exhausted("too many exits were not taken in time: list the containers, then ask for exits again")
        finally:
            self._subscribers.discard(queue)

    # How containers end

    def _watch(self, container: _Container) -> None:
        fd = processes.open_process(container.state.monitor_pid, container.state.monitor_started)
        if fd is None:  # ended already
            self._own(self._on_monitor_end(container))
            return
        container.monitor_fd = fd
        asyncio.get_running_loop().add_reader(fd, self._on_monitor_readable, container)

    def _on_monitor_readable(self, container: _Container) -> None:
        self._unwatch(container)
        self._own(self._on_monitor_end(container))

    def _unwatch(self, container: _Container) -> None:
        if container.monitor_fd >= 0:
            asyncio.get_running_loop().remove_reader(container.monitor_fd)
            os.close(container.monitor_fd)
            container.monitor_fd = -1

    async def _on_monitor_end(self, container: _Container) -> None:
        async with container.lock:
            processes.reap(container.state.monitor_pid)
            await self._settle(container)

    async def _settle(self, container: _Container) -> None:
        """Keeps how it ended, tells everybody, cleans up. Under the container's lock."""
        container_id, state = container.record.id, container.state
        ending = await self._blocking(lambda: self._launcher.read_ending(container_id))
        ended = msgspec.structs.replace(
            state,
            phase="exited",
            pid=0,
            monitor_pid=0,
            exit_code=ending.exit_code,
            oom_killed=ending.oom_killed,
            error=ending.error,
            finished_at=ending.finished_at,
        )
        await self._keep(container, ended)
        await self._blocking(lambda: self._launcher.clean(container_id, is_monitor_gone=True))
        container.ended.set()
        for queue in self._subscribers:
            _put_last(queue, container.public())

    async def _adopt(self, container: _Container) -> None:
        """At the start: takes up what runs, settles what ended, undoes what was half-started."""
        async with container.lock:
            state, container_id = container.state, container.record.id
            if state.phase == "running":
                is_alive = state.boot_id == self._boot_id and processes.start_time(state.monitor_pid) is not None
                if is_alive and processes.start_time(state.monitor_pid) == state.monitor_started:
                    container.ended.clear()
                    self._watch(container)
                else:
                    await self._settle(container)
            elif state.phase == "starting":
                await self._blocking(lambda: self._launcher.clean(container_id, is_monitor_gone=False))
                await self._keep(container, StoredState(error="the daemon was stopped while the container started"))
            else:
                await self._blocking(lambda: self._launcher.clean(container_id, is_monitor_gone=True))

    def _signal(self, container: _Container, number: int) -> bool:
        return processes.send_signal(container.state.pid, container.state.pid_started, number)

    async def _kill(self, container: _Container) -> None:
        self._signal(container, signal.SIGKILL)
        if not await self._ends_within(container, KILL_WAIT_S):
            raise FailedPrecondition(
                f"container {container.record.id[:12]} does not end {KILL_WAIT_S:.0f} s after SIGKILL: "
                "a process in it may be stuck in the kernel"
            )

    async def _ends_within(self, container: _Container, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await container.ended.wait()
        except TimeoutError:
            return False
        return True

    # Inside

    async def _rotate_logs(self) -> None:
        """A look at the size of each running container's log now and then; conmon itself bounds it in between."""
        while not self._closing.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(ROTATE_EVERY_S):
                    await self._closing.wait()
            running = [entry.record for entry in self._containers.values() if entry.state.phase == "running"]
            if running:
                await self._io_run(lambda running=running: self._rotate(running))  # type: ignore[misc]

    def _rotate(self, records: Sequence[ContainerRecord]) -> None:
        for record in records:
            self._rotate_log(record)

    def _rotate_log(self, record: ContainerRecord) -> None:
        paths, config = self._store.paths(record.id), record.config
        with suppress(OSError):  # it ended meanwhile, or its monitor does not listen: the next look will tell
            if 0 < config.log_max_size < paths.log.stat().st_size:
                control = os.open(paths.bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    rotate(paths.log, config.log_max_files)
                    os.write(control, _REOPEN_LOG)
                finally:
                    os.close(control)

    def _image_uses(self) -> Sequence[ContainerUse]:
        own = [
            ContainerUse(entry.record.id, entry.record.image_id, entry.record.diff_ids, entry.state.phase == "running")
            for entry in list(self._containers.values())
        ]
        return own + [ContainerUse(record.id, record.image_id, record.diff_ids, False) for record in self._foreign]

    def _find(self, wanted: str) -> _Container:
        """By id, name, or an id's unambiguous beginning."""
        container_id = wanted if wanted in self._containers else self._names.get(wanted)
        if container_id is None and wanted:
            matches = [known for known in self._containers if known.startswith(wanted)]
            container_id = matches[0] if len(matches) == 1 else None
        if container_id is None:
            raise NotFound(f"No such container: {wanted}")
        return self._containers[container_id]

    def _check_present(self, container: _Container) -> None:
        if container.is_removed:
            raise NotFound(f"No such container: {container.record.id}")

    def _forget(self, container: _Container) -> None:
        self._containers.pop(container.record.id, None)
        self._names.pop(container.record.config.name, None)

    async def _keep(self, container: _Container, state: StoredState) -> None:
        container.state = state
        await self._blocking(lambda: self._store.save(container.record.id, state))

    async def _blocking(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def _io_run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._io, function)

    def _own(self, step: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _finish(self, step: Coroutine[Any, Any, T]) -> T:
        """The step is finished even if its caller is cancelled."""
        return await asyncio.shield(self._own(step))


def _lock(path: Path) -> int:
    """One runtime per root; the kernel lets go when the process ends, however it ends."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise FailedPrecondition(
            f"{path.parent} is in use by another daemon: stop it first, or choose another state directory"
        ) from None
    return fd


def _put_last(queue: asyncio.Queue[ContainerState | None], item: ContainerState | None) -> None:
    """Full: the end mark takes the place of what was not taken."""
    try:
        queue.put_nowait(item)
    except asyncio.QueueFull:
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)


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
    text = str(error)
    missing, forbidden = ("no such file", "not found"), ("permission denied", "is a directory", "exec format")
    lowered = text.lower()
    code = (
        127 if any(word in lowered for word in missing) else 126 if any(word in lowered for word in forbidden) else 128
    )
    return msgspec.structs.replace(previous, phase="created", exit_code=code, error=text)


def _as_refusal(error: Exception) -> Exception:
    return FailedPrecondition(f"the container cannot be started: {error}") if isinstance(error, OSError) else error

"""The blocking steps of one container's life: launch it, say how it ended, clean up after it.

Called from the runtime's pool, one call at a time per container; the runtime decides when. Every step may be
repeated, and `clean` undoes whatever part of `launch` was done.
"""

from __future__ import annotations

import os
import platform
import secrets
import stat
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pyswarm_common.errors import FailedPrecondition, PyswarmError, Unsupported
from pyswarm_common.files import read_bounded
from pyswarm_runtime import linux
from pyswarm_runtime.cgroups import ContainerGroups
from pyswarm_runtime.conmon import MonitorPaths, monitor_arguments, start_monitor
from pyswarm_runtime.container_store import ContainerPaths, ContainerRecord, ContainerStore
from pyswarm_runtime.devices import host_devices, wanted_devices
from pyswarm_runtime.etcfiles import hosts_file, resolv_conf
from pyswarm_runtime.host_checks import check_apparmor, check_bind, has_apparmor
from pyswarm_runtime.layers import layer_name
from pyswarm_runtime.log_drivers import check_present
from pyswarm_runtime.oci.defaults import SHM
from pyswarm_runtime.oci.mounts import BundlePaths
from pyswarm_runtime.oci.spec import HostFacts, build_spec, capabilities, default_hostname
from pyswarm_runtime.ocirun import OciRuntime
from pyswarm_runtime.preflight import find_init, own_capabilities
from pyswarm_runtime.processes import find_by_argument, kill_and_wait, reap, start_time
from pyswarm_runtime.seccomp_filter import compiled_filter
from pyswarm_runtime.snapshot import Snapshot
from pyswarm_runtime.types import ContainerConfig, Mount, Preflight
from pyswarm_runtime.users import ProcessUser, resolve_user, with_groups
from pyswarm_runtime.volumes import VolumeStore, bound_subpath

MAX_ACCOUNT_FILE = 1024 * 1024
USER_CACHE_SIZE = 1024
MAKER_ROUNDS = 5  # conmon, the runtime that it starts, and the process that this starts
MAX_PRIVATE_ENV = 4 * 1024 * 1024
LOST_EXIT_CODE = 255
LOST_ERROR = "the container's monitor was killed or the host went down: how the container ended is not known"


@dataclass(frozen=True, slots=True)
class Launched:
    pid: int
    pid_started: int | None
    monitor_pid: int
    monitor_started: int | None
    started_at: float


@dataclass(frozen=True, slots=True)
class Ending:
    exit_code: int
    oom_killed: bool
    error: str
    finished_at: float


class Launcher:
    def __init__(
        self,
        preflight: Preflight,
        store: ContainerStore,
        oci: OciRuntime,
        groups: ContainerGroups,
        layers: Path,
        volumes: VolumeStore,
    ) -> None:
        self._preflight = preflight
        self._store = store
        self._oci = oci
        self._groups = groups
        self._layers = layers
        self._volumes = volumes
        self._users: dict[tuple[str, str, tuple[str, ...]], ProcessUser] = {}
        self._init = find_init()
        self._capabilities = own_capabilities()

    def snapshot(self, container_id: str) -> Snapshot:
        return Snapshot(self._store.paths(container_id).directory, self._layers)

    # Launching

    def launch(self, record: ContainerRecord) -> Launched:
        """Returns when the container's process runs; on any failure nothing of it is left."""
        try:
            return self._launch(record)
        except BaseException:
            self.clean(record.id, is_monitor_gone=False)
            raise

    def _launch(self, record: ContainerRecord) -> Launched:
        paths = self._store.paths(record.id)
        snapshot = self.snapshot(record.id)
        snapshot.make()
        snapshot.mount([layer_name(diff_id) for diff_id in record.diff_ids])
        paths.bundle.mkdir(mode=0o700, exist_ok=True)
        paths.exit_file.unlink(missing_ok=True)
        with ExitStack() as held:
            spec = self._spec(record, paths, snapshot.rootfs, held)
            (paths.bundle / "config.json").write_bytes(msgspec.json.encode(spec))
            arguments = self._monitor_arguments(record, paths)
            monitor, pid = start_monitor(arguments, paths.bundle, self._groups.adopt_monitor)
        # The monitor outlives us: from here on it is known by its pid, and reaped by whoever watches it.
        monitor.returncode = 0
        launched = Launched(pid, start_time(pid), monitor.pid, start_time(monitor.pid), time.time())
        self._oci.start(record.id)
        return launched

    def _monitor_arguments(self, record: ContainerRecord, paths: ContainerPaths) -> list[str]:
        monitor_paths = MonitorPaths(
            conmon=self._preflight.conmon_path,
            oci_runtime=self._oci.path,
            oci_root=self._oci.root,
            exits=self._store.exits,
            bundle=paths.bundle,
            log=paths.log,
        )
        config = record.config
        return monitor_arguments(
            record.id,
            config.name,
            monitor_paths,
            tty=config.tty,
            log_max_size=config.log_max_size,
            log_driver=config.log_driver,
            stdin=config.stdin_open,
        )

    def _spec(self, record: ContainerRecord, paths: ContainerPaths, rootfs: Path, held: ExitStack) -> dict[str, Any]:
        """`held`: what must stay open until the OCI runtime has made the container."""
        check_present(record.config.log_driver)
        check_apparmor(record.config.apparmor_profile)
        config = self._with_sources(record, rootfs, held)
        bundle = self._write_etc(record, paths, rootfs)
        if config.init and bundle.init is None:
            raise Unsupported("an init process was asked for, but this host has none: apt-get install tini")
        architecture = platform.machine()
        facts = HostFacts(
            architecture=architecture,
            seccomp_filter=compiled_filter(architecture, frozenset(capabilities(config, self._capabilities))),
            cgroup_version=self._preflight.cgroup_version,
            devices=(*(host_devices() if config.privileged else ()), *wanted_devices(config.devices)),
            capabilities=self._capabilities,
            oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
            has_apparmor=has_apparmor(),
        )
        user = self.user_of(record, rootfs, config.user or record.image.user)
        group = self._groups.path_of(record.id)
        return build_spec(record.id, config, record.image, user, bundle, facts, group)

    def _with_sources(self, record: ContainerRecord, rootfs: Path, held: ExitStack) -> ContainerConfig:
        """Volumes become binds of their directories; what shall be bound must be there."""
        mounts = tuple(self._with_source(mount, rootfs, record.id, held) for mount in record.config.mounts)
        env = (*record.config.env, *_private_env(record.config.private_env_path))
        return msgspec.structs.replace(record.config, mounts=mounts, env=env)

    def _with_source(self, mount: Mount, rootfs: Path, container_id: str, held: ExitStack) -> Mount:
        if mount.type == "volume":
            data = self._volumes.ensure(mount, rootfs, container_id)
            read_only = mount.read_only or bool(os.statvfs(data).f_flag & os.ST_RDONLY)
            if mount.subpath:
                place = self._store.paths(container_id).bundle / f"volume-{secrets.token_hex(8)}"
                data = held.enter_context(bound_subpath(data, mount.subpath, place))
            return msgspec.structs.replace(mount, source=str(data), read_only=read_only)
        if mount.type == "bind":
            check_bind(mount)
        return mount

    def _write_etc(self, record: ContainerRecord, paths: ContainerPaths, rootfs: Path) -> BundlePaths:
        """Into the bundle, since they are made anew at every start."""
        config, etc = record.config, paths.bundle
        hostname = default_hostname(record.id, config)
        files = {
            "hosts": hosts_file(hostname, config.extra_hosts),
            "hostname": f"{hostname}\n",
            "resolv.conf": resolv_conf(config.dns, config.dns_search, config.dns_options, _host_resolv_conf()),
        }
        for name, text in files.items():
            path = etc / name
            path.write_text(text)
            path.chmod(0o644)
        return BundlePaths(
            rootfs=str(rootfs),
            hosts=str(etc / "hosts"),
            hostname=str(etc / "hostname"),
            resolv_conf=str(etc / "resolv.conf"),
            init=self._init,
            host_ipc=tuple(path for path in ("/dev/mqueue", SHM) if Path(path).is_dir()),
        )

    def user_of(self, record: ContainerRecord, rootfs: Path, wanted: str) -> ProcessUser:
        """The image's accounts do not change, so each spelling is looked up once per image."""
        key = (record.image_id, wanted, record.config.groups)
        if key not in self._users:
            if len(self._users) >= USER_CACHE_SIZE:
                self._users.clear()
            passwd, group = (read_in_root(rootfs, path) for path in ("etc/passwd", "etc/group"))
            self._users[key] = with_groups(resolve_user(wanted, passwd, group), record.config.groups, group)
        return self._users[key]

    # Afterwards

    def read_ending(self, container_id: str) -> Ending:
        """To be asked when the monitor has ended, before `clean`."""
        oom_killed = self._groups.is_oom_killed(container_id)
        exit_file = self._store.paths(container_id).exit_file
        try:
            return Ending(int(exit_file.read_text()), oom_killed, "", exit_file.stat().st_mtime)
        except (OSError, ValueError):
            return Ending(LOST_EXIT_CODE, oom_killed, LOST_ERROR, time.time())

    def _end_makers(self, container_id: str) -> None:
        """The monitor, and what it runs: an OCI runtime left alone would go on and make the container after all."""
        for _ in range(MAKER_ROUNDS):
            makers = find_by_argument(("conmon", Path(self._oci.path).name), container_id)
            for pid in makers:
                kill_and_wait(pid, start_time(pid))
                reap(pid)
            if not makers:
                return

    def clean(self, container_id: str, *, is_monitor_gone: bool, keep_exit_file: bool = False) -> None:
        """Ends and removes whatever there is of a container but its files; may be called again and again."""
        if not is_monitor_gone:
            self._end_makers(container_id)
        with suppress(PyswarmError):
            self._oci.delete(container_id)
        self._groups.kill_all(container_id)
        self._groups.remove(container_id)
        self.snapshot(container_id).unmount()
        self._volumes.release(container_id)
        self._store.remove_bundle(container_id, keep_exit_file=keep_exit_file)


def read_in_root(root: Path, path: str) -> str:
    """A small text file of an untrusted file system; empty where there is none."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = linux.open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    finally:
        os.close(root_fd)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        return file.read(MAX_ACCOUNT_FILE).decode("utf-8", "replace")


def _private_env(path: str) -> tuple[str, ...]:
    if not path:
        return ()
    try:
        data = read_bounded(Path(path), MAX_PRIVATE_ENV)
    except OSError as error:
        raise FailedPrecondition(
            f"the container's secret variables are gone ({error.strerror}): make it anew"
        ) from None
    return tuple(data.decode().split("\0"))


def _host_resolv_conf() -> str:
    with suppress(OSError):
        return Path("/etc/resolv.conf").read_text()
    return ""

"""Starting a container's monitor. conmon holds stdio, writes the log and the exit code, and outlives this process.

Blocking: called from the pool. The monitor is told the OCI runtime and creates the container through it; then
`OciRuntime.start` lets it run. No descriptor of ours but the two pipes is inherited.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import FailedPrecondition

CREATE_TIMEOUT_S = 120.0
MAX_ANSWER = 64 * 1024
# conmon starts the log anew at this many times the size at which we rotate it: only if we are not there to do so.
HARD_LIMIT_FACTOR = 4


@dataclass(frozen=True, slots=True)
class MonitorPaths:
    conmon: str
    oci_runtime: str
    oci_root: Path
    exits: Path
    bundle: Path
    log: Path


class _Answer(msgspec.Struct):
    data: int = -1
    pid: int = 0
    message: str = ""


def monitor_arguments(
    container_id: str,
    name: str,
    paths: MonitorPaths,
    *,
    tty: bool,
    log_max_size: int,
    log_driver: str = "",
    stdin: bool = False,
) -> list[str]:
    """Pure. `--sync` keeps conmon our child, so that its pid is known before it does anything."""
    arguments = [
        paths.conmon,
        *("--api-version", "1"),
        *("-c", container_id, "-u", container_id, "-n", name or container_id[:12]),
        *("-r", paths.oci_runtime),
        *("-b", str(paths.bundle), "-p", str(paths.bundle / "pid")),
        *("--exit-dir", str(paths.exits)),
        *_log_arguments(log_driver, paths.log),
        *("--full-attach", "--no-sync-log", "--sync"),
        *("--log-level", "error"),
        *("--runtime-arg", "--root", "--runtime-arg", str(paths.oci_root)),
    ]
    if log_max_size > 0:
        arguments += ["--log-size-max", str(log_max_size * HARD_LIMIT_FACTOR)]
    if Path(paths.oci_runtime).name.startswith("crun"):
        arguments += ["--runtime-arg", "--cgroup-manager=cgroupfs"]
    if stdin:
        arguments += ["-i", "--leave-stdin-open"]
    return [*arguments, "-t"] if tty else arguments


def _log_arguments(driver: str, log: Path) -> list[str]:
    """journald gets its copy beside our file, from which we read; so does docker."""
    if driver == "none":
        return ["-l", "none:"]
    ours = ["-l", f"k8s-file:{log}"]
    return [*ours, "-l", "journald:"] if driver == "journald" else ours


def start_monitor(
    arguments: list[str], bundle: Path, adopt: Callable[[int], None]
) -> tuple[subprocess.Popen[bytes], int]:
    """Runs conmon until the container is created; gives the monitor and the container's first process."""
    sync_read, sync_write = os.pipe()
    start_read, start_write = os.pipe()
    try:
        try:
            monitor = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=bundle,
                umask=0o022,  # the OCI runtime makes directories that the container's users see
                pass_fds=(sync_write, start_read),
                env={"_OCI_SYNCPIPE": str(sync_write), "_OCI_STARTPIPE": str(start_read), "PATH": os.defpath},
            )
        finally:
            os.close(sync_write)
            os.close(start_read)
        adopt(monitor.pid)
        os.write(start_write, b"\n")
        return monitor, _await_created(monitor, sync_read)
    finally:
        os.close(sync_read)
        os.close(start_write)


def _await_created(monitor: subprocess.Popen[bytes], sync: int) -> int:
    try:
        answer = decode_json(_read_line(sync), _Answer)
    except (Malformed, TimeoutError) as error:
        monitor.kill()
        monitor.wait()
        raise FailedPrecondition(f"OCI runtime create failed: the monitor gave no answer ({error})") from error
    pid = answer.data if answer.data > 0 else answer.pid
    if pid <= 0:
        monitor.wait(timeout=CREATE_TIMEOUT_S)
        raise FailedPrecondition(f"OCI runtime create failed: {_tidy(answer.message)}")
    return pid


def _read_line(fd: int) -> bytes:
    deadline = time.monotonic() + CREATE_TIMEOUT_S
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    data = b""
    while b"\n" not in data and len(data) < MAX_ANSWER:
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError(f"nothing within {CREATE_TIMEOUT_S:.0f} s")
        chunk = os.read(fd, MAX_ANSWER)
        if not chunk:
            break
        data += chunk
    return data


def _tidy(message: str) -> str:
    """The last line of what the OCI runtime wrote, without its time stamps."""
    lines = [line for line in message.strip().splitlines() if line.strip()]
    return lines[-1][:1000] if lines else "it gave no reason"

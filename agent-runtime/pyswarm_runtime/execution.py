"""Runs one command in a running container and keeps its output, up to a limit and a time.

Used by health checks and by whoever wants an answer, not a terminal. At the time limit the process is killed in the
container; output beyond the limit is read and dropped, so that the command is not stopped by a full pipe.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from pyswarm_common.documents import decode_json
from pyswarm_common.errors import FailedPrecondition, InvalidArgument
from pyswarm_common.files import read_bounded
from pyswarm_runtime.ocirun import OciRuntime
from pyswarm_runtime.processes import send_signal
from pyswarm_runtime.types import ExecResult

CHUNK = 64 * 1024
MAX_SPEC = 4 * 1024 * 1024
# A grandchild in the background may hold the output open: after the command's end we wait this long for the rest.
DRAIN_S = 0.5
TIMEOUT_EXIT_CODE = 137


class _Output:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self.is_truncated = False

    async def collect(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(CHUNK):
            room = self._limit - len(self._data)
            self._data += chunk[:room]
            self.is_truncated |= len(chunk) > room

    @property
    def data(self) -> bytes:
        return bytes(self._data)


def exec_process(spec: dict[str, Any], argv: Sequence[str]) -> dict[str, Any]:
    """The container's own process (user, rights, environment) with other arguments and no terminal. Pure."""
    if not argv or any("\0" in argument for argument in argv):
        raise InvalidArgument("No exec command specified: give at least the program's name")
    return {**spec["process"], "args": list(argv), "terminal": False}


async def execute(
    oci: OciRuntime, container_id: str, bundle: Path, argv: Sequence[str], timeout_s: float | None, max_output: int
) -> ExecResult:
    spec = read_spec(bundle / "config.json")
    name = f"exec-{secrets.token_hex(8)}"
    process_file, pid_file = bundle / f"{name}.json", bundle / f"{name}.pid"
    process_file.write_bytes(msgspec.json.encode(exec_process(spec, argv)))
    try:
        process = await oci.exec(container_id, process_file, pid_file)
        return await _attend(process, pid_file, timeout_s, max_output)
    finally:
        process_file.unlink(missing_ok=True)
        pid_file.unlink(missing_ok=True)


def read_spec(path: Path) -> dict[str, Any]:
    """A container's `config.json`, as it was started with."""
    try:
        return decode_json(read_bounded(path, MAX_SPEC), dict[str, Any])
    except ValueError as error:
        raise FailedPrecondition(f"{path} is damaged ({error}): remove the container and make it anew") from error


async def _attend(
    process: asyncio.subprocess.Process, pid_file: Path, timeout_s: float | None, max_output: int
) -> ExecResult:
    assert process.stdout is not None
    output = _Output(max_output)
    timed_out = False
    async with asyncio.TaskGroup() as group:
        collecting = group.create_task(output.collect(process.stdout))
        try:
            async with asyncio.timeout(timeout_s):
                await process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            await _end(process, pid_file)
        await asyncio.wait([collecting], timeout=DRAIN_S)
        collecting.cancel()
    exit_code = TIMEOUT_EXIT_CODE if timed_out else process.returncode
    assert exit_code is not None
    return ExecResult(exit_code, output.data, output.is_truncated, timed_out)


async def _end(process: asyncio.subprocess.Process, pid_file: Path) -> None:
    """Nothing to do after a normal end. Else the command first, while the OCI runtime still holds its pid."""
    if process.returncode is not None:
        return
    with suppress(OSError, ValueError):
        send_signal(int(pid_file.read_text()), None, signal.SIGKILL)
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()

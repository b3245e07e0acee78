"""The OCI runtime (crun or runc) as a program: start, delete, exec. Blocking but for exec."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path

from pyswarm_common.errors import FailedPrecondition

COMMAND_TIMEOUT_S = 60.0
MAX_REASON = 1000
MAX_LOG = 64 * 1024


class OciRuntime:
    def __init__(self, path: str, root: Path) -> None:
        self.path = path
        self.root = root
        manager = ["--cgroup-manager=cgroupfs"] if Path(path).name.startswith("crun") else []
        self._base = [path, "--root", str(root), *manager]

    def start(self, container_id: str) -> None:
        self._run("start", container_id)

    def knows(self, container_id: str) -> bool:
        return (self.root / container_id).exists()

    def delete(self, container_id: str) -> None:
        """Kills what runs and removes what the runtime keeps of it, control groups included."""
        if self.knows(container_id):
            self._run("delete", "--force", container_id)

    async def exec(self, container_id: str, process_file: Path, pid_file: Path) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._base,
            *("exec", "--process", str(process_file), "--pid-file", str(pid_file), container_id),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": os.defpath},
        )

    async def exec_session(
        self, container_id: str, process_file: Path, pid_file: Path, console: Path | None, *, with_input: bool
    ) -> asyncio.subprocess.Process:
        """With pipes for its streams; with `console`, its terminal comes by that socket instead."""
        terminal = ["--console-socket", str(console)] if console is not None else []
        piped, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        return await asyncio.create_subprocess_exec(
            *self._base,
            *("exec", "--process", str(process_file), "--pid-file", str(pid_file), *terminal, container_id),
            stdin=piped if with_input and console is None else nothing,
            stdout=nothing if console is not None else piped,
            stderr=piped,
            env={"PATH": os.defpath},
        )

    async def exec_detached(self, container_id: str, process_file: Path, log: Path) -> str:
        """Returns when the command runs, or says why it does not. It keeps none of our descriptors."""
        nothing = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            *(*self._base, "--log", str(log), "--log-format", "json"),
            *("exec", "--detach", "--process", str(process_file), container_id),
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            env={"PATH": os.defpath},
        )
        if await process.wait() == 0:
            return ""
        return _reason(log.read_bytes()[-MAX_LOG:] if log.exists() else b"")

    def _run(self, *arguments: str) -> None:
        try:
            subprocess.run(
                [*self._base, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"PATH": os.defpath},
                timeout=COMMAND_TIMEOUT_S,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise FailedPrecondition(f"OCI runtime {arguments[0]} failed: {_reason(error.stderr)}") from error
        except subprocess.TimeoutExpired as error:
            raise FailedPrecondition(
                f"OCI runtime {arguments[0]} did not answer within {COMMAND_TIMEOUT_S:.0f} s"
            ) from error


def _reason(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    text = lines[-1] if lines else "it gave no reason"
    if text.startswith("{"):
        with suppress(ValueError):
            text = str(json.loads(text).get("msg", text))
    return text[:MAX_REASON]

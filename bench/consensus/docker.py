"""Docker Swarm's managers (docker.io), through the Engine API on their sockets. A write changes a label of a service.

Its daemons run in namespaces of their own, made by `bench.docker_swarm`. The client blocks, so each has a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.consensus.system import RefusedError
from bench.memory import pss_mib

sys.path.insert(0, str(Path(__file__).parents[1] / "docker_swarm"))

from api import Api, ApiError
from run import leader_of, spec, swarm, wait_reachable

_CALL_TIMEOUT_S = 2.0


def is_installed() -> bool:
    return shutil.which("dockerd") is not None


class DockerSwarm:
    """Three dockerd that are managers of one swarm."""

    name = "Docker Swarm"
    attempt_s = None

    def __init__(self, lab: Any) -> None:
        self._lab = lab
        self._threads = ThreadPoolExecutor(80)

    async def run(self, function: Callable[..., Any], *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def leader(self) -> int:
        return int(self._lab.nodes.index(await self.run(self._leader)))

    def _leader(self) -> Any:
        while (node := leader_of(self._lab)) is None:
            time.sleep(0.2)
        return node

    @contextlib.asynccontextmanager
    async def client(self, member: int, owner: str) -> AsyncIterator[DockerClient]:
        api = Api(self._lab.nodes[member].sock, timeout=_CALL_TIMEOUT_S)
        try:
            yield DockerClient(self, api, owner)
        finally:
            api.close()

    async def kill(self, member: int) -> None:
        await self.run(self._lab.nodes[member].kill_daemons)

    async def revive(self, member: int) -> None:
        node = self._lab.nodes[member]
        await self.run(node.start)
        await self.run(wait_reachable, self._lab, node)

    def memory_mib(self) -> list[float]:
        pids = (node.daemon_pids("dockerd", "containerd") for node in self._lab.nodes)
        return [round(sum(pss_mib(pid) for pid, _ in of_node), 1) for of_node in pids]

    def close(self) -> None:
        self._threads.shutdown()


class DockerClient:
    """One connection; its service is made at the first write."""

    def __init__(self, system: DockerSwarm, api: Any, owner: str) -> None:
        self._run, self._api, self._owner = system.run, api, owner
        self._id = ""

    async def create(self, name: str) -> None:
        await self._run(self._create, name)

    async def write(self, value: str) -> None:
        await self._run(self._write, value)

    async def read(self) -> None:
        await self._run(self._api.get, f"/services/{self._id or self._owner}")

    def _create(self, name: str) -> str:
        with _refusals():
            return str(self._api.create_service(spec(name, 0)))

    def _write(self, value: str) -> None:
        """The version has to be read first: the answer to an update does not tell it."""
        with _refusals():
            self._id = self._id or self._create(self._owner)
            self._api.update_service(self._id, lambda service: service.setdefault("Labels", {}).update(value=value))


@contextlib.contextmanager
def _refusals() -> Any:
    try:
        yield
    except (ApiError, OSError) as error:
        raise RefusedError(str(error)) from error


@contextlib.asynccontextmanager
async def started() -> AsyncIterator[DockerSwarm]:
    """Three managers."""
    with swarm(3, 3) as lab:
        system = DockerSwarm(lab)
        try:
            yield system
        finally:
            system.close()

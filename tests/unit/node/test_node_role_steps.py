"""A step of the role loop is decided again when it has its turn: a manager that only stood still is not made anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from msgspec.structs import replace

from pyswarm_common.identity import NodeIdentity, RootAuthority, generate_key, key_to_pem, make_csr
from pyswarm_common.model import ManagerStatus, Node, NodeRole, NodeSpec
from pyswarm_manager.config import ManagerConfig
from pyswarm_node.identity import CurrentIdentity
from pyswarm_node.paths import NodeRecord, Options
from pyswarm_node.role_steps import RoleSteps
from pyswarm_node.standing import Standing

NODE, CLUSTER = "n" * 25, "c" * 25
RECORD = NodeRecord(node_id=NODE, cluster_id=CLUSTER, address="192.0.2.1", data_path_address="192.0.2.1")


class Manager:
    """What is done with the local manager."""

    def __init__(self) -> None:
        self.is_set_up = self.is_running = False
        self.done: list[str] = []
        self.started = asyncio.Event()

    async def remove(self) -> None:
        self.done.append("remove")

    def configure(self, *settings: object) -> None:
        self.done.append("configure")

    def introduce(self, addresses: Sequence[str]) -> None:
        self.done.append(f"introduce {' '.join(addresses)}")
        self.started.set()

    def start(self) -> None:
        self.done.append("start")
        self.is_set_up = True
        self.started.set()


class Turns(asyncio.Lock):
    """Tells when somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = asyncio.Event()

    async def acquire(self) -> Literal[True]:
        if self.locked():
            self.waited_for.set()
        return await super().acquire()


def manager_identity(directory: Path) -> CurrentIdentity:
    root, key = RootAuthority.create(CLUSTER, time.time()), generate_key()
    certificate = root.issue(
        make_csr(key), node_id=NODE, cluster_id=CLUSTER, role=NodeRole.MANAGER, now=time.time(), lifetime_s=3600
    )
    return CurrentIdentity(directory, NodeIdentity(certificate, key_to_pem(key), root.cert_pem))


@pytest.fixture
async def standing(tmp_path: Path) -> Standing:
    standing: Any = Standing(Options(state_dir=tmp_path / "state", run_dir=tmp_path / "run"))
    standing.manager = Manager()
    standing.record, standing.identity = RECORD, manager_identity(tmp_path)
    return standing  # type: ignore[no-any-return]


def wanted_manager() -> Node:
    member = ManagerStatus(raft_id=1, address="192.0.2.1:2377")
    return Node(id=NODE, spec=NodeSpec(role=NodeRole.MANAGER), role=NodeRole.MANAGER, manager_status=member)


async def test_a_missing_manager_is_made(standing: Standing) -> None:
    manager: Any = standing.manager
    steps = RoleSteps(standing)
    steps.on_node(wanted_manager())
    running = asyncio.create_task(steps.run())
    await manager.started.wait()
    running.cancel()
    assert manager.done == ["remove", "configure", "start"]


async def test_a_manager_that_stood_still_for_a_change_is_left_alone(standing: Standing) -> None:
    manager: Any = standing.manager
    steps = RoleSteps(standing)
    steps.on_node(wanted_manager())
    standing.changing = turns = Turns()
    await turns.acquire()  # a recovery is under way, with the manager stopped
    running = asyncio.create_task(steps.run())
    await turns.waited_for.wait()
    manager.is_set_up = True
    turns.release()
    async with turns:  # after the step, which was first in the queue
        running.cancel()
    assert manager.done == []


async def test_a_manager_that_no_leader_knows_is_kept_and_introduced(standing: Standing) -> None:
    """What a leader says may be old news: a manager that was just let in must not be ended because of it."""
    manager: Any = standing.manager
    manager.is_set_up = True
    standing.known_managers = lambda: (RECORD.manager_address, "192.0.2.7:2377")  # type: ignore[method-assign]
    steps = RoleSteps(standing)
    steps.on_node(replace(wanted_manager(), manager_status=None))
    running = asyncio.create_task(steps.run())
    await manager.started.wait()
    running.cancel()
    assert manager.done == ["introduce 192.0.2.7:2377"]


async def test_only_news_reaches_the_manager(tmp_path: Path) -> None:
    options = Options(state_dir=tmp_path / "state", run_dir=tmp_path / "run")
    options.manager.directory.mkdir(parents=True)
    manager = Standing(options).manager
    manager.configure(RECORD, 7, ("192.0.2.7:2377",))
    told: list[str] = []
    manager.reload = lambda: told.append("reload")  # type: ignore[method-assign]
    others = ("192.0.2.8:2377", "192.0.2.9:2377")
    for addresses in (("192.0.2.7:2377",), (), others, others[::-1]):
        manager.introduce(addresses)
    assert told == ["reload"]
    config = ManagerConfig.load(options.manager)
    assert (config.raft_id, config.join_addresses) == (7, others)

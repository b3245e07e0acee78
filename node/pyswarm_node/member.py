"""The worker half of a node that is in a cluster: overlay and agent, opened and closed together.

Decides nothing: what runs is the agent's business. Closing leaves containers and networks as they are; `leave` stops
and removes them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pyswarm_common.model import Node, NodeDescription
from pyswarm_overlay import OverlayHost
from pyswarm_overlay.types import OverlayConfig
from pyswarm_runtime import Runtime
from pyswarm_runtime.pulling import registry_pull
from pyswarm_worker.agent import Agent
from pyswarm_worker.settings import AgentConfig, AgentHooks, AgentWires

from .addresses import everywhere
from .describe import describe, with_tunnels
from .identity import CurrentIdentity
from .network_watch import RepairNews, watch_networks
from .paths import NodeRecord, Options, join_host_port
from .plugin_watch import FoundPlugins
from .routes import watch_routes
from .underlay_watch import underlay_changes, watch_underlay

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MemberHooks:
    """What the member needs of the daemon, and tells it."""

    local_manager: Callable[[], str | None]
    on_node: Callable[[Node], None]
    on_data_path_port: Callable[[int], None]
    on_failed: Callable[[BaseException], None]
    on_roots: Callable[[bytes], None]
    removal: Callable[[], Awaitable[str]]


class Member:
    """Made by `start`."""

    def __init__(
        self,
        overlay: OverlayHost,
        agent: Agent,
        plugins: FoundPlugins,
        repairs: RepairNews,
        on_failed: Callable[[BaseException], None],
        check_period_s: float,
    ) -> None:
        self.overlay = overlay
        self.agent = agent
        self._plugins = plugins
        self._repairs = repairs
        self._on_failed = on_failed
        overlay.encryption.on_keys = agent.description_changed
        self._run = asyncio.create_task(self._run_parts(check_period_s))

    @classmethod
    async def start(
        cls, options: Options, record: NodeRecord, identity: CurrentIdentity, runtime: Runtime, hooks: MemberHooks
    ) -> Member:
        overlay = await open_overlay(options, record.data_path_address, record.data_path_port)
        plugins, repairs = FoundPlugins(overlay.plugin_places), RepairNews()
        try:
            await plugins.look()
            agent = await Agent.open(
                _agent_config(options, record),
                _agent_hooks(options, record, identity, runtime, hooks, overlay, plugins, repairs),
                runtime,
                runtime.images,
                overlay,
                wires=AgentWires(
                    access=runtime.access,
                    pull=registry_pull(runtime.images),
                    inspector=overlay,
                    tunnels=overlay.encryption,
                ),
            )
        except BaseException:
            await overlay.close()
            raise
        return cls(overlay, agent, plugins, repairs, hooks.on_failed, options.network_check_period_s)

    async def _run_parts(self, check_period_s: float) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.agent.run())
                group.create_task(self.overlay.encryption.run())
                group.create_task(self._plugins.run(self.agent.description_changed))
                group.create_task(watch_routes(self.agent.description_changed))
                group.create_task(watch_underlay(self.overlay, underlay_changes()))
                group.create_task(self._repairs.run(self.agent.description_changed))
                watch = watch_networks(self.overlay, lambda: self.agent.is_busy, check_period_s, self._repairs.tell)
                group.create_task(watch)
        except Exception as error:
            _log.critical("the agent failed", exc_info=error)
            self._on_failed(error)

    async def close(self) -> None:
        """Containers run on."""
        await self._end_run()
        await self.agent.close()
        await self.overlay.close()

    async def end_session(self) -> None:
        """Talk to managers no more; tasks go on."""
        await self._end_run()

    async def leave(self) -> None:
        """Stop and remove every task and every network, then close."""
        await self._end_run()
        await self.agent.stop_tasks()
        await self.agent.close()
        await self.overlay.destroy()

    async def _end_run(self) -> None:
        self._run.cancel()
        await asyncio.gather(self._run, return_exceptions=True)


async def open_overlay(options: Options, node_address: str, data_path_port: int) -> OverlayHost:
    """With everything of it that an earlier daemon left."""
    return await OverlayHost.open(
        OverlayConfig(
            run_dir=options.run_dir / "network",
            state_dir=options.network,
            node_address=node_address,
            data_path_port=data_path_port,
        )
    )


def _agent_config(options: Options, record: NodeRecord) -> AgentConfig:
    return AgentConfig(
        state_dir=options.agent,
        run_dir=options.run_dir / "agent",
        address=record.address,
        listen_address=join_host_port(everywhere(record.address), options.agent_port),
        managers=record.managers,
        seeds=record.seeds,
    )


def _agent_hooks(
    options: Options,
    record: NodeRecord,
    identity: CurrentIdentity,
    runtime: Runtime,
    hooks: MemberHooks,
    overlay: OverlayHost,
    plugins: FoundPlugins,
    repairs: RepairNews,
) -> AgentHooks:
    agent_address = join_host_port(record.address, options.agent_port)

    def description() -> NodeDescription:
        said = describe(runtime.preflight, record.data_path_address, agent_address, options.generic_resources)
        return repairs.described(plugins.described(with_tunnels(said, overlay.encryption)))

    return AgentHooks(
        identity=identity,
        describe=description,
        local_manager=hooks.local_manager,
        on_node=hooks.on_node,
        on_data_path_port=hooks.on_data_path_port,
        on_roots=hooks.on_roots,
        removal=hooks.removal,
    )

"""What an agent is given: its place on the disk and in the network, what the daemon tells it, and its wires.

Values and callables only; who acts on them is `agent`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pyswarm_common.identity import NodeIdentity
from pyswarm_common.model import Node, NodeDescription

from .attaching import AskPlace
from .core.materials import NodeFacts
from .images import Pull
from .network_checks import NetworkInspector
from .peers import ConnectAgent
from .plain_file import PlainFile
from .ports import ContainerAccess
from .server import AgentServer, AgentServicer
from .session import Dial
from .task_files import TaskFiles
from .tunnels import Tunnels


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Where the agent keeps its state and listens, and whom it may dial."""

    state_dir: Path
    address: str
    """The IP address this node advertises."""
    listen_address: str = "0.0.0.0:7946"
    managers: tuple[str, ...] = ()
    """Known from joining; those the managers tell later are kept on disk."""
    run_dir: Path | None = None
    """What is gone after a reboot; None: below `state_dir`."""
    seeds: tuple[str, ...] = ()
    """Managers by name, resolved when they are dialled: the last resort, should all managers have moved."""

    @property
    def task_files(self) -> Path:
        """Where secrets and configs are put for containers; kept in memory, wherever it is."""
        return (self.run_dir or self.state_dir) / "task-files"


@dataclass(frozen=True, slots=True)
class AgentHooks:
    """What the daemon gives, and what it wants to hear."""

    identity: Callable[[], NodeIdentity]
    describe: Callable[[], NodeDescription]
    local_manager: Callable[[], str | None]
    on_node: Callable[[Node], None]
    """The node's own object, at the start of each session and when it changes."""
    on_data_path_port: Callable[[int], None]
    """UDP port of VXLAN in this cluster, at the start of each session."""
    on_roots: Callable[[bytes], None] = lambda roots: None
    """The roots (PEM) to trust, when they are not those of the identity."""
    removal: Callable[[], Awaitable[str]] | None = None
    """Asks the managers in another way than by a session whether this node was removed; empty: not that they say."""


class Server(Protocol):
    """What this node serves to the others."""

    async def start(self, identity: NodeIdentity) -> int:
        """Returns the port. Again with another identity: new connections use that one."""
        ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class AgentWires:
    """How the agent reaches others and is reached, its clock, its chance. The simulator puts its own in place."""

    dial: Dial | None = None
    connect: ConnectAgent | None = None
    serve: Callable[[AgentServicer, str], Server] = AgentServer
    clock: Callable[[], float] = time.time
    uniform: Callable[[float, float], float] = random.uniform
    access: ContainerAccess | None = None
    """Into its containers; without it nobody can enter them."""
    pull: Pull | None = None
    """From registries; without it images come from other nodes only."""
    files: Callable[[Path, Callable[[], NodeFacts]], TaskFiles] = TaskFiles
    """Where secrets and configs are put."""
    inspector: NetworkInspector | None = None
    """Looks at its networks; without it nobody can have them verified."""
    tunnels: Tunnels | None = None
    """Of encrypted networks; without them there are none."""
    ask_place: AskPlace | None = None
    """Asks the managers for plain containers' places on networks."""
    plain_file: Callable[[Path], PlainFile] = PlainFile
    """Where plain containers are kept."""


REAL = AgentWires()
"""Those of a real node."""

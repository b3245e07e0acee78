"""Where one daemon keeps its files, and what it remembers of its membership (`node.json`)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.files import write_private
from pyswarm_common.model import GenericResource
from pyswarm_manager.config import ManagerPaths

DEFAULT_LISTEN_ADDRESS = "0.0.0.0:2377"
DEFAULT_DATA_PATH_PORT = 4789


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    state_dir: Path = Path("/var/lib/pyswarm")
    run_dir: Path = Path("/run/pyswarm")
    cgroup_parent: str = "/pyswarm"
    agent_port: int = 7946
    oci_runtime: str | None = None
    log_level: str = "info"
    network_check_period_s: float = 30.0
    advertise: str | None = None
    """Instead of what the node advertised so far."""
    generic_resources: tuple[GenericResource, ...] = ()

    @property
    def socket(self) -> Path:
        return self.run_dir / "pyswarm.sock"

    @property
    def manager(self) -> ManagerPaths:
        return ManagerPaths(self.state_dir, self.run_dir)

    @property
    def manager_aside(self) -> Path:
        """What the manager had on disk, while a backup is restored in its place."""
        return self.state_dir / "manager.aside"

    @property
    def certificates(self) -> Path:
        return self.state_dir / "certificates"

    @property
    def agent(self) -> Path:
        return self.state_dir / "agent"

    @property
    def network(self) -> Path:
        return self.state_dir / "network"

    @property
    def record(self) -> Path:
        return self.state_dir / "node.json"

    def forget_membership(self) -> None:
        """Everything that belongs to the cluster; images stay."""
        self.record.unlink(missing_ok=True)
        for directory in (self.certificates, self.manager.directory, self.manager_aside, self.agent, self.network):
            shutil.rmtree(directory, ignore_errors=True)


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """This machine as a member of a cluster. Its existence is the membership: written when joining has succeeded."""

    node_id: str
    cluster_id: str
    address: str
    """The IP address that the node advertises."""
    data_path_address: str
    data_path_port: int = DEFAULT_DATA_PATH_PORT
    listen_address: str = DEFAULT_LISTEN_ADDRESS
    manager_port: int = 2377
    """Advertised, should this node be (or become) a manager."""
    managers: tuple[str, ...] = ()
    """Known from joining. Newer ones are in the agent's state."""
    advertise: str = ""
    """`--advertise-addr` as it was given: an interface, an address, or nothing (see `moving`)."""
    data_path: str = ""
    """`--data-path-addr` as it was given."""
    listen: str = ""
    """`--listen-addr` as it was given."""
    seeds: tuple[str, ...] = ()
    """Managers by name (host:port) as the machine joined, resolved anew each time they are needed."""

    @property
    def manager_address(self) -> str:
        return join_host_port(self.address, self.manager_port)

    def save(self, options: Options) -> None:
        write_private(options.record, msgspec.json.format(msgspec.json.encode(self)))

    @classmethod
    def load(cls, options: Options) -> NodeRecord | None:
        """None when this machine is in no cluster."""
        try:
            return decode_json(options.record.read_bytes(), cls)
        except FileNotFoundError:
            return None
        except Malformed as error:
            raise FailedPrecondition(
                f"{options.record} is damaged ({error}): restore it, or remove {options.state_dir} and join again"
            ) from error


def join_host_port(host: str, port: int) -> str:
    """ "192.0.2.1:2377", "[2001:db8::1]:2377"."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

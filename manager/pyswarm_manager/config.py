"""What a manager process is told: its place in Raft, where it listens, and whom to ask to join.

`manager.json` in the state directory, written by the daemon before it starts the process. The process itself changes
two things in it: that it has a log, and its raft id when that log was lost (`rejoin`). Never holds a secret: keys and
certificates have files of their own.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import FailedPrecondition, InvalidArgument
from pyswarm_common.files import write_private

DEFAULT_LISTEN_ADDRESS = "0.0.0.0:2377"


class ManagerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One manager's settings."""

    raft_id: int
    """Random, 63 bits, new for each time the machine becomes a manager."""
    advertise_address: str
    """host:port at which the other managers and the agents reach this one."""
    listen_address: str = DEFAULT_LISTEN_ADDRESS
    join_addresses: tuple[str, ...] = ()
    """Managers to ask to be let into Raft. Empty for the first manager of a cluster."""
    seeds: tuple[str, ...] = ()
    """Managers by name (host:port), as the machine joined: resolved anew each time, should all managers have moved."""
    has_log: bool = False
    """A log was begun under this raft id. If it is not there any more it was lost (see `rejoin`)."""

    @classmethod
    def load(cls, paths: ManagerPaths) -> ManagerConfig:
        """Raises FailedPrecondition if there is none or it cannot be read."""
        try:
            config = decode_json(paths.config.read_bytes(), cls)
        except FileNotFoundError as error:
            raise FailedPrecondition(
                f"no manager is set up in {paths.root}: run `pyswarm init` or `pyswarm join`"
            ) from error
        except Malformed as error:
            raise FailedPrecondition(f"{paths.config} is damaged ({error}): leave the swarm and join again") from error
        for address in (config.listen_address, config.advertise_address, *config.join_addresses, *config.seeds):
            split_address(address)
        return config

    def save(self, paths: ManagerPaths) -> None:
        """Write the file atomically, for its owner only."""
        write_private(paths.config, msgspec.json.format(msgspec.json.encode(self)))


class ManagerPaths(msgspec.Struct, frozen=True):
    """Where a manager's files are."""

    root: Path
    """The daemon's state directory."""
    run_dir: Path

    @property
    def certificates(self) -> Path:
        return self.root / "certificates"

    @property
    def directory(self) -> Path:
        return self.root / "manager"

    @property
    def config(self) -> Path:
        return self.directory / "manager.json"

    @property
    def bootstrap(self) -> Path:
        return self.directory / "bootstrap.msgpack"

    @property
    def database(self) -> Path:
        return self.directory / "raft.db"

    @property
    def keyring(self) -> Path:
        return self.directory / "raft-keys"

    @property
    def standing(self) -> Path:
        return self.directory / "standing.json"

    @property
    def backups(self) -> Path:
        """Automatic backups. Not below `directory`: they outlive the membership."""
        return self.root / "backups"

    @property
    def socket(self) -> Path:
        return self.run_dir / "manager.sock"


def split_address(address: str) -> tuple[str, int]:
    """("192.0.2.1", 2377) of "192.0.2.1:2377", also of "[2001:db8::1]:2377". Raises InvalidArgument."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise InvalidArgument(f"invalid address {address}: it must be of the form IP:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)

"""Names, folders and addresses of a lab: all that follows from its name and the number of a host.

Pure: decides where things are, touches none of them.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pyswarm_lab.errors import LabError

BASE = Path("/var/lib/pyswarm-lab")
# Outside of every address pool that a cluster uses by default (10.0.0.0/8). Each lab has a switch of its own, so that
# all of them may use the same addresses.
SUBNET = ipaddress.IPv4Network("192.168.77.0/24")
SWITCH_ADDRESS = SUBNET[1]
SUBNET6 = ipaddress.IPv6Network("fd00:77::/64")
SWITCH_ADDRESS6 = SUBNET6[1]
CGROUP_ROOT = "pyswarm-lab"
STATE_DIR = "/var/lib/pyswarm"
RUN_DIR = "/run/pyswarm"
MAX_HOSTS = 100
_FIRST_HOST = 10
Families = Literal["ipv4", "ipv6", "dual-stack"]
"""What a lab's hosts have addresses of."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a lab keeps what."""

    name: str
    base: Path = BASE

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise LabError(
                f'"{self.name}" cannot be the name of a lab: use lower-case letters, digits and "-", 40 at most.'
            )

    @property
    def dir(self) -> Path:
        return self.base / self.name

    @property
    def switch_record(self) -> Path:
        return self.dir / "switch.json"

    def host_dir(self, host: str) -> Path:
        return self.dir / host

    def host_record(self, host: str) -> Path:
        return self.host_dir(host) / "host.json"

    def cgroup(self, host: str = "") -> str:
        """Path below each cgroup hierarchy, without a leading slash."""
        return "/".join(part for part in (CGROUP_ROOT, self.name, host) if part)


def host_name(index: int) -> str:
    """`n1` is the first."""
    return f"n{index}"


def host_addresses(index: int, families: Families = "ipv4") -> tuple[str, ...]:
    """The addresses of the host with that number, from 1; the cluster is formed with the first. The last digits are the
    same in both families: 192.168.77.11 and fd00:77::11."""
    last = _FIRST_HOST + index
    four, six = str(SUBNET[last]), f"{SUBNET6.network_address}{last}"
    return {"ipv4": (four,), "ipv6": (six,), "dual-stack": (four, six)}[families]


def check_size(managers: int, workers: int) -> None:
    """Refuse sizes that cannot be built."""
    if managers < 1 or workers < 0:
        raise LabError("A lab needs at least one manager, and no fewer than zero workers.")
    if managers + workers > MAX_HOSTS:
        raise LabError(f"A lab has {MAX_HOSTS} hosts at most, {managers + workers} were asked for.")

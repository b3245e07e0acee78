"""The lab's switch: a bridge in a network namespace of its own, and a cable (veth) to each host.

Cables are made between the two namespaces directly; the machine's own namespace never holds one.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from pyswarm_lab.errors import LabError
from pyswarm_lab.layout import SUBNET, SUBNET6, SWITCH_ADDRESS, SWITCH_ADDRESS6
from pyswarm_lab.processes import ProcessRef

BRIDGE = "switch0"
UPLINK = "eth0"


def build(holder: ProcessRef) -> None:
    """Make the bridge. It has an address too, so that the switch can play "a client out there"."""
    _ip(
        holder,
        "link set lo up",
        f"link add {BRIDGE} type bridge forward_delay 0",
        f"addr add {SWITCH_ADDRESS}/{SUBNET.prefixlen} dev {BRIDGE}",
        f"addr add {SWITCH_ADDRESS6}/{SUBNET6.prefixlen} dev {BRIDGE} nodad",
        f"link set {BRIDGE} up",
    )


def plug(holder: ProcessRef, port: str, host: ProcessRef, addresses: Sequence[str]) -> None:
    """Put a cable between the switch's port of that name and the host's eth0."""
    _ip(
        holder,
        f"link add {port} type veth peer name {UPLINK} netns {host.pid}",
        f"link set {port} master {BRIDGE}",
        f"link set {port} up",
    )
    _ip(
        host,
        "link set lo up",
        *(_address_line(address) for address in addresses),
        f"link set {UPLINK} up",
        *(f"route add default via {SWITCH_ADDRESS6 if ':' in one else SWITCH_ADDRESS}" for one in addresses),
    )


def _address_line(address: str) -> str:
    """Nobody else has it, so an IPv6 address need not be asked for before it is used."""
    if ":" in address:
        return f"addr add {address}/{SUBNET6.prefixlen} dev {UPLINK} nodad"
    return f"addr add {address}/{SUBNET.prefixlen} dev {UPLINK}"


def set_port(holder: ProcessRef, port: str, *, up: bool) -> None:
    """Pull the cable at the switch, or put it back."""
    _ip(holder, f"link set {port} {'up' if up else 'down'}")


def unplug(holder: ProcessRef, port: str) -> None:
    """Remove the cable, if there is one: a host's namespace takes its own time to drop its end."""
    if port in ports(holder):
        _ip(holder, f"link del {port}")


def ports(holder: ProcessRef) -> dict[str, bool]:
    """The switch's cables, and whether each port is up."""
    text = _run(["ip", "-j", "link", "show", "master", BRIDGE], holder, "")
    links: list[dict[str, Any]] = json.loads(text or "[]")
    return {link["ifname"]: "UP" in link["flags"] for link in links if "ifname" in link}


def _ip(process: ProcessRef, *lines: str) -> None:
    _run(["ip", "-batch", "-"], process, "\n".join(lines) + "\n")


def _run(argv: list[str], process: ProcessRef, standard_input: str) -> str:
    command = ["nsenter", "-t", str(process.pid), "-n", *argv]
    done = subprocess.run(command, input=standard_input, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["unknown reason"]
        raise LabError(f"The lab's network cannot be changed: {lines[0]}.")
    return done.stdout

"""Placement constraints: parsing ("node.role == worker") and whether a node satisfies them.

Values compare without regard to case, as in Swarm. A label that a node lacks equals nothing. `parse_constraint` is also
what the API validates with.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Node

_KEYS: dict[str, Callable[[Node], str]] = {
    "node.id": lambda node: node.id,
    "node.hostname": lambda node: node.description.hostname,
    "node.role": lambda node: node.role.name,
    "node.platform.os": lambda node: node.description.os,
    "node.platform.arch": lambda node: _architecture(node.description.architecture),
}
_LABELS = ("node.labels.", "engine.labels.")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i386": "386", "i686": "386"}
_FORM = re.compile(r"\s*(?P<key>[a-zA-Z0-9._/-]+)\s*(?P<operator>==|!=)\s*(?P<value>.*?)\s*", re.DOTALL)
_VALUE = re.compile(r"[\w:./ *()?+\[\]\\^$|@,-]+")

_IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Constraint:
    key: str
    equal: bool
    value: str
    subnet: _IPNetwork | None = None
    """What `node.ip` is compared with."""

    def matches(self, node: Node) -> bool:
        return self._holds(node) is self.equal

    def _holds(self, node: Node) -> bool:
        if self.subnet is not None:
            return _inside(node.status.address, self.subnet)
        found = node_value(node, self.key)
        return found is not None and found.casefold() == self.value.casefold()


@functools.lru_cache(maxsize=4096)
def parse_constraint(text: str) -> Constraint:
    """The constraint that the text says. InvalidArgument says what is wrong with it."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise InvalidArgument(f"invalid constraint '{text}': write it as 'key==value' or 'key!=value'")
    key, value = form["key"], form["value"]
    if not _VALUE.fullmatch(value):
        raise InvalidArgument(f"invalid constraint '{text}': '{value}' cannot be a value")
    equal = form["operator"] == "=="
    if key == "node.ip":
        return Constraint(key, equal, value, _subnet(text, value))
    if key not in _KEYS and not any(key.startswith(prefix) and key != prefix for prefix in _LABELS):
        known = ", ".join([*_KEYS, "node.ip", "node.labels.NAME", "engine.labels.NAME"])
        raise InvalidArgument(f"invalid constraint '{text}': unknown key '{key}', use one of {known}")
    if key == "node.role" and value.casefold() not in ("worker", "manager"):
        raise InvalidArgument(f"invalid constraint '{text}': node.role is worker or manager")
    if key == "node.platform.arch":
        value = _architecture(value)
    return Constraint(key, equal, value)


@functools.lru_cache(maxsize=4096)
def parse_constraints(texts: tuple[str, ...]) -> tuple[Constraint, ...]:
    return tuple(parse_constraint(text) for text in texts)


def satisfies(node: Node, constraints: Iterable[Constraint]) -> bool:
    return all(constraint.matches(node) for constraint in constraints)


def node_value(node: Node, key: str) -> str | None:
    """What the key stands for on this node; None for a label that it lacks."""
    if key.startswith("node.labels."):
        return node.spec.labels.get(key.removeprefix("node.labels."))
    if key.startswith("engine.labels."):
        return node.description.engine_labels.get(key.removeprefix("engine.labels."))
    read = _KEYS.get(key)
    return read(node) if read is not None else None


def _subnet(text: str, value: str) -> _IPNetwork:
    try:
        return ipaddress.ip_network(value, strict=False)
    except ValueError as error:
        raise InvalidArgument(f"invalid constraint '{text}': node.ip takes an address or a subnet") from error


def _inside(address: str, subnet: _IPNetwork) -> bool:
    try:
        return ipaddress.ip_address(address) in subnet
    except ValueError:
        return False  # a node that has not told its address yet


def _architecture(name: str) -> str:
    return _ARCHITECTURES.get(name.casefold(), name)

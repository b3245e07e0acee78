"""Placement constraints: parsing ("node.role == worker") and whether a node satisfies them.

Operators: `==`, `!=`, `in` (one of several), `<` and `>` (numbers, or versions like 1.2.3), `=~` (a regular expression
that is found in the value). Values compare without regard to case, as in Swarm; regular expressions with it. A label
that a node lacks equals nothing, is in nothing and compares with nothing. `parse_constraint` is also what the API
validates with. Regular expressions come from users and run on the leader: RE2 takes linear time for every one of them.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import re2

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Node

_KEYS: dict[str, Callable[[Node], str]] = {
    "node.id": lambda node: node.id,
    "node.hostname": lambda node: node.description.hostname,
    "node.role": lambda node: node.role.name,
    "node.platform.os": lambda node: node.description.os,
    "node.platform.arch": lambda node: architecture(node.description.architecture),
}
_LABELS = ("node.labels.", "engine.labels.")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i386": "386", "i686": "386"}
_FORM = re.compile(
    r"\s*(?P<key>[a-zA-Z0-9._/-]+)(?:\s*(?P<sign>==|!=|=~|<|>)|\s+(?P<word>in)(?=[\s(]))\s*(?P<value>.*?)\s*", re.DOTALL
)
_VALUE = re.compile(r"[\w:./ *()?+\[\]\\^$|@,-]+")
_NUMBER = re.compile(r"[+-]?\d{1,300}(?:\.\d{1,300})?")
_VERSION = re.compile(r"[vV]?(\d{1,18}(?:\.\d{1,18}){1,8})(?:[-+].*)?", re.DOTALL)
_MAX_REGEX_MEMORY = 1 << 20
_EXAMPLE = "write it as 'key==value', 'key!=value', 'key in (a, b)', 'key<number', 'key>number' or 'key=~expression'"

_IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Operator(StrEnum):
    EQUAL = "=="
    UNEQUAL = "!="
    IN = "in"
    LESS = "<"
    GREATER = ">"
    MATCHES = "=~"


@dataclass(frozen=True, slots=True)
class Constraint:
    key: str
    operator: Operator
    values: tuple[str, ...]
    """One, or (with `in`) several."""
    subnets: tuple[_IPNetwork, ...] = ()
    """What `node.ip` is compared with."""

    def matches(self, node: Node) -> bool:
        if self.subnets:
            inside = any(_inside(node.status.address, subnet) for subnet in self.subnets)
            return inside is not (self.operator is Operator.UNEQUAL)
        found = node_value(node, self.key)
        match self.operator:
            case Operator.EQUAL | Operator.IN:
                return found is not None and found.casefold() in self.values
            case Operator.UNEQUAL:
                return found is None or found.casefold() != self.values[0]
            case Operator.LESS:
                return found is not None and _compared(found, self.values[0]) < 0
            case Operator.GREATER:
                return found is not None and _compared(found, self.values[0]) > 0
            case Operator.MATCHES:
                return found is not None and _expression(self.values[0]).search(found) is not None


@functools.lru_cache(maxsize=4096)
def parse_constraint(text: str) -> Constraint:
    """The constraint that the text says. InvalidArgument says what is wrong with it."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise InvalidArgument(f"invalid constraint '{text}': {_EXAMPLE}")
    key, operator = form["key"], Operator(form["sign"] or form["word"])
    values = _split(form["value"]) if operator is Operator.IN else (form["value"],)
    for value in values:
        if operator is not Operator.MATCHES and not _VALUE.fullmatch(value):
            raise InvalidArgument(f"invalid constraint '{text}': '{value}' cannot be a value")
    if key == "node.ip":
        return _address_constraint(text, operator, values)
    if key not in _KEYS and not any(key.startswith(prefix) and key != prefix for prefix in _LABELS):
        known = ", ".join([*_KEYS, "node.ip", "node.labels.NAME", "engine.labels.NAME"])
        raise InvalidArgument(f"invalid constraint '{text}': unknown key '{key}', use one of {known}")
    _check_values(text, key, operator, values)
    if operator is Operator.MATCHES:
        return Constraint(key, operator, values)
    if key == "node.platform.arch":
        values = tuple(architecture(value) for value in values)
    return Constraint(key, operator, tuple(value.casefold() for value in values))


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


def architecture(name: str) -> str:
    """The name that images have for it."""
    return _ARCHITECTURES.get(name.casefold(), name)


def _split(text: str) -> tuple[str, ...]:
    """The values of "(a, b)"; the parentheses may be left out."""
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    return tuple(part.strip() for part in text.split(","))


def _address_constraint(text: str, operator: Operator, values: tuple[str, ...]) -> Constraint:
    if operator not in (Operator.EQUAL, Operator.UNEQUAL, Operator.IN):
        raise InvalidArgument(f"invalid constraint '{text}': node.ip takes ==, != and in")
    return Constraint("node.ip", operator, values, tuple(_subnet(text, value) for value in values))


def _check_values(text: str, key: str, operator: Operator, values: tuple[str, ...]) -> None:
    match operator:
        case Operator.LESS | Operator.GREATER:
            if not _NUMBER.fullmatch(values[0]) and not _VERSION.fullmatch(values[0]):
                raise InvalidArgument(f"invalid constraint '{text}': '{values[0]}' is no number or version to compare")
        case Operator.MATCHES:
            try:
                _expression(values[0])
            except re2.error as error:
                raise InvalidArgument(f"invalid constraint '{text}': bad regular expression: {_said(error)}") from error
        case _:
            if key == "node.role" and any(value.casefold() not in ("worker", "manager") for value in values):
                raise InvalidArgument(f"invalid constraint '{text}': node.role is worker or manager")


def _said(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


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


@functools.lru_cache(maxsize=1024)
def _expression(text: str) -> Any:
    options = re2.Options()
    options.max_mem = _MAX_REGEX_MEMORY
    options.log_errors = False
    return re2.compile(text, options)


def _compared(found: str, wanted: str) -> int:
    """Negative, zero or positive; zero too for what cannot be compared."""
    if _NUMBER.fullmatch(found) and _NUMBER.fullmatch(wanted):
        difference = float(found) - float(wanted)
        return (difference > 0) - (difference < 0)
    ours, theirs = _version(found), _version(wanted)
    return (ours > theirs) - (ours < theirs) if ours and theirs else 0


def _version(text: str) -> tuple[int, ...]:
    form = _VERSION.fullmatch(text)
    if form is not None:
        return tuple(int(part) for part in form[1].split("."))
    return (int(text),) if text.isascii() and text.isdigit() and len(text) <= 18 else ()

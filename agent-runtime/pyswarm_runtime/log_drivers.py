"""Where a container's output goes: the drivers that this host has, and what their options mean. Pure but for the look.

`json-file` and `local` are one and the same file, which we read and rotate; they differ in how much they keep. Options
that would only decorate docker's JSON lines are refused rather than ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pyswarm_common.errors import InvalidArgument, Unsupported
from pyswarm_runtime.types import MIB

JOURNALD_SOCKET = Path("/run/systemd/journal/socket")
DEFAULT = "json-file"
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,3})?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_MAX_FILES = 1000
_FILE_OPTIONS = ("max-size", "max-file", "mode")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "json-file": _FILE_OPTIONS,
    "local": _FILE_OPTIONS,
    "journald": ("mode",),
    "none": ("mode",),
}


@dataclass(frozen=True, slots=True)
class LogSettings:
    driver: str
    max_size: int  # of one file
    max_files: int


_DEFAULTS = {"local": (20 * MIB, 5)}
_OTHERS = (16 * MIB, 2)


def log_drivers() -> tuple[str, ...]:
    """Of this host."""
    return tuple(name for name in sorted(_OPTIONS) if name != "journald" or JOURNALD_SOCKET.exists())


def log_settings(driver: str, options: Mapping[str, str]) -> LogSettings:
    """What a driver's options mean; refused with docker's words where docker refuses."""
    name = driver or DEFAULT
    if name not in _OPTIONS:
        raise Unsupported(f"logger: no log driver named '{name}' is registered: use {', '.join(_OPTIONS)}")
    for option in options:
        if option not in _OPTIONS[name]:
            raise InvalidArgument(
                f"unknown log opt '{option}' for {name} log driver: it has {', '.join(_OPTIONS[name])}"
            )
    if options.get("mode", "blocking") != "blocking":
        raise Unsupported(f"logger: logging mode {options['mode']} is not supported: only blocking is")
    size, files = _DEFAULTS.get(name, _OTHERS)
    if "max-size" in options:
        size = _size(options["max-size"])
    if "max-file" in options:
        files = _files(options["max-file"])
    return LogSettings(name, size, files)


def check_present(driver: str) -> None:
    """Refuses a driver that this host lacks."""
    if driver == "journald" and not JOURNALD_SOCKET.exists():
        raise Unsupported("journald is not enabled on this host: use another log driver")


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match.group(1)) * 1024 ** _POWERS[match.group(2).lower()]) if match else 0
    if size <= 0:
        raise InvalidArgument(f"invalid max-size: '{text}': write a size above zero, such as 10m")
    return size


def _files(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= _MAX_FILES):
        raise InvalidArgument(f"max-file cannot be less than 1 or more than {_MAX_FILES}: '{text}'")
    return int(text)

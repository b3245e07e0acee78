"""Where plugins are found, as Docker looks for them: sockets first, then files that name a socket.

`/run/docker/plugins/NAME.sock` (or NAME/NAME.sock), `/etc/docker/plugins/NAME.spec` and `.json`, and the same in
`/usr/lib/docker/plugins`. Plugins at TCP addresses are passed over: a network driver works on its own host's
interfaces. The files are outside input: bounded, and what cannot be read is no plugin.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import NotFound, PyswarmError

from .plugin_client import Plugin, activate

NETWORK_DRIVER = "NetworkDriver"
IPAM_DRIVER = "IpamDriver"
_KINDS = {NETWORK_DRIVER: "Network", IPAM_DRIVER: "Ipam"}
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,127}")
_MAX_FILE = 64 << 10
_MAX_PLUGINS = 64
_UNIX = "unix://"


@dataclass(frozen=True, slots=True)
class PluginPlaces:
    sockets: Path
    specs: tuple[Path, ...]


class _Description(msgspec.Struct):
    Name: str = ""
    Addr: str = ""


def find(places: PluginPlaces, name: str) -> Plugin:
    """Raises NotFound in docker's words."""
    if _NAME.fullmatch(name):
        for candidate in (places.sockets / f"{name}.sock", places.sockets / name / f"{name}.sock"):
            if candidate.is_socket():
                return Plugin(name, candidate)
        for directory in places.specs:
            for path in (directory / f"{name}.spec", directory / f"{name}.json"):
                socket = _named(path)
                if socket is not None:
                    return Plugin(name, socket)
    raise NotFound(f"could not find plugin {name} in v1 plugin registry: plugin not found on this node")


def _named(path: Path) -> Path | None:
    """The socket that a file names."""
    try:
        data = path.read_bytes() if path.stat().st_size <= _MAX_FILE else b""
        text = decode_json(data, _Description).Addr if path.suffix == ".json" else data.decode().strip()
    except (OSError, Malformed, UnicodeDecodeError):
        return None
    return Path(text.removeprefix(_UNIX)) if text.startswith(_UNIX + "/") and "\0" not in text else None


def names(places: PluginPlaces) -> list[str]:
    """Of everything that looks like a plugin, sorted; no more than anybody has."""
    found = {path.stem for path in _listed(places.sockets) if path.suffix == ".sock"}
    found |= {path.name for path in _listed(places.sockets) if (path / f"{path.name}.sock").is_socket()}
    for directory in places.specs:
        found |= {path.stem for path in _listed(directory) if path.suffix in (".spec", ".json")}
    return sorted(name for name in found if _NAME.fullmatch(name))[:_MAX_PLUGINS]


def _listed(directory: Path) -> Iterator[Path]:
    try:
        yield from sorted(directory.iterdir())
    except OSError:
        return


async def discover(places: PluginPlaces) -> tuple[tuple[str, str], ...]:
    """(kind, name) of every plugin that answers and has to do with networks: ("Network", "acme"), ("Ipam", "acme")."""

    async def kinds(name: str) -> tuple[str, ...]:
        try:
            return tuple(_KINDS[what] for what in await activate(find(places, name)) if what in _KINDS)
        except PyswarmError:  # it does not answer, so it cannot be used
            return ()

    known = names(places)
    answers = await asyncio.gather(*(kinds(name) for name in known))
    return tuple((kind, name) for name, found in zip(known, answers, strict=True) for kind in dict.fromkeys(found))

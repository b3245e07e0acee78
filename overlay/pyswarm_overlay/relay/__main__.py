"""The relay's process: `python -m pyswarm_overlay.relay SOCKET`.

It outlives the daemon that started it: connections go on, and the next daemon finds it at the same socket. It ends by
itself once nothing is wanted of it and nobody is connected; so it does when it hears what it does not understand (from
a newer daemon, which then starts another one).
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import uvloop

from .server import Relay
from .wanted import FORMAT, MAX_LINE, Answer, Wanted


class Control:
    """Answers the daemon, one line for one line."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._lock = asyncio.Lock()
        self.retired = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                wanted = _decoded(line)
                if wanted is None:
                    self.retired.set()
                    return
                async with self._lock:
                    problems = await self._relay.apply(wanted)
                answer = Answer(problems=tuple(problems), connections=self._relay.connections)
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
                if not wanted.ports:
                    self.retired.set()
                    return
        except (OSError, ValueError):  # the daemon ended, or wrote no line
            return
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def _decoded(line: bytes) -> Wanted | None:
    try:
        wanted = msgspec.json.decode(line, type=Wanted)
    except msgspec.MsgspecError:
        return None
    return wanted if wanted.format == FORMAT else None


async def main(path: Path) -> None:
    relay = Relay()
    control = Control(relay)
    beginning = path.with_suffix(".new")
    beginning.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(control.serve, beginning, limit=MAX_LINE)
    beginning.rename(path)  # whoever sees it can connect
    mine = path.stat().st_ino
    await control.retired.wait()
    server.close()
    with suppress(OSError):
        if path.stat().st_ino == mine:
            path.unlink()
    await relay.finish()


if __name__ == "__main__":
    logging.basicConfig(format="pyswarm relay: %(message)s")
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.umask(0o077)
    uvloop.run(main(Path(sys.argv[1])))

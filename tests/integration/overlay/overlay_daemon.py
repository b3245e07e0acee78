"""An OverlayHost in a process of its own, driven by JSON lines: what the integration tests run inside each host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from typing import Any

import msgspec
import uvloop

from pyswarm_common.errors import PyswarmError
from pyswarm_overlay import IngressPort, NetworkTable, OverlayConfig, OverlayHost, Sandbox, TableDelta
from pyswarm_overlay.encryption.types import TunnelPeer
from pyswarm_overlay.reports import Hop

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "apply_table": (NetworkTable,),
    "apply_delta": (TableDelta,),
    "remove_network": (str,),
    "attach": (Sandbox,),
    "attach_all": (tuple[Sandbox, ...],),
    "attach_and_die": (Sandbox, float),
    "storm": (tuple[Sandbox, ...], tuple[TableDelta, ...], int),
    "detach": (str,),
    "retain": (tuple[str, ...],),
    "set_ingress": (tuple[str, ...], tuple[IngressPort, ...]),
    "verify": (),
    "watch": (),
    "findings": (),
    "check": (bool,),
    "trace_source": (str, str, int, str, bool),
    "trace_target": (str, Hop, int, str),
    "follow_underlay": (),
    "destroy": (),
    "close": (),
    "sandboxes": (),
    "tunnel_keys": (),
    "update_peers": (tuple[TunnelPeer, ...], tuple[str, ...], bool),
    "rotate": (),
}


async def attach_and_die(host: OverlayHost, sandbox: Sandbox, after_s: float) -> None:
    """Be killed somewhere inside an attach."""
    asyncio.get_running_loop().call_later(after_s, os.kill, os.getpid(), signal.SIGKILL)
    await host.attach(sandbox)
    await asyncio.sleep(60)


async def storm(host: OverlayHost, sandboxes: tuple[Sandbox, ...], deltas: tuple[TableDelta, ...], seed: int) -> bool:
    """Attach and detach all at once while the table changes; some callers give up in the middle."""
    rng = random.Random(seed)

    async def come_and_go(sandbox: Sandbox) -> None:
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.choice([0.002, 0.01, 10])):
                    await host.attach(sandbox)
            if rng.random() < 0.6:
                await host.detach(sandbox.sandbox_id)
        await host.attach(sandbox)

    async def change() -> bool:
        return all([await host.apply_delta(delta) for delta in deltas])

    *_, applied = await asyncio.gather(*(come_and_go(sandbox) for sandbox in sandboxes), change())
    return bool(applied)


FINDINGS: list[str] = []
WATCHES: list[asyncio.Task[None]] = []


async def watch(host: OverlayHost) -> None:
    """Verify continuously from now on."""

    async def follow() -> None:
        async for finding in host.watch(30.0, lambda: False):
            FINDINGS.append(f"{' '.join(finding.place)}: {'; '.join(finding.problems)} left: {'; '.join(finding.left)}")

    WATCHES.append(asyncio.create_task(follow()))


async def call(host: OverlayHost, method: str, arguments: list[Any]) -> Any:
    kinds = ARGUMENTS[method]
    values = [msgspec.convert(value, kind) for value, kind in zip(arguments, kinds, strict=True)]
    if method == "attach_and_die":
        return await attach_and_die(host, *values)
    if method == "storm":
        return await storm(host, *values)
    if method == "check":
        return await host.check(repair=values[0])
    if method == "trace_source":
        return await host.trace_source(*values[:4], probe=values[4])
    if method == "watch":
        return await watch(host)
    if method == "findings":
        return FINDINGS
    if method == "attach_all":
        return await asyncio.gather(*(host.attach(sandbox) for sandbox in values[0]))
    if method == "update_peers":
        return await host.encryption.update_peers(values[0], values[1], complete=values[2])
    if method in ("rotate", "tunnel_keys"):
        return host.encryption.rotate() if method == "rotate" else host.encryption.announced()
    result = getattr(host, method)(*values)
    return await result if asyncio.iscoroutine(result) else result


async def main() -> None:
    config = msgspec.json.decode(sys.argv[1], type=OverlayConfig, dec_hook=lambda kind, value: kind(value))
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    answer: dict[str, Any]
    background: list[asyncio.Task[None]] = []
    try:
        host = await OverlayHost.open(config)
        answer = {"ok": None}
        background.append(loop.create_task(host.encryption.run()))
    except PyswarmError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(msgspec.json.encode(answer).decode(), flush=True)
    while line := await reader.readline():
        method, arguments = msgspec.json.decode(line)
        try:
            answer = {"ok": await call(host, method, arguments)}
        except PyswarmError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        print(msgspec.json.encode(answer).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main())

"""How fast one host attaches and detaches sandboxes, and how fast it takes a table's changes.

Run as root: `unshare -n -m --propagation private .venv/bin/python bench/overlay_attach.py`. It programs the namespace
that it runs in, so it refuses any but a new one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from pyswarm_overlay import (
    Attachment,
    EndpointRecord,
    NetworkTable,
    OverlayConfig,
    OverlayHost,
    Sandbox,
    ServiceRecord,
    TableDelta,
)

ADDRESS = "192.0.2.1"


def endpoint(number: int, *, ready: bool, node: str = ADDRESS) -> EndpointRecord:
    return EndpointRecord(
        endpoint_id=f"t{number}",
        name=f"web.{number}",
        addresses=(f"10.0.{number // 250 + 1}.{number % 250 + 3}",),
        node_address=node,
        service_id="s",
        ready=ready,
    )


def table(endpoints: tuple[EndpointRecord, ...]) -> NetworkTable:
    return NetworkTable(
        network_id="net1",
        name="web",
        vni=4097,
        subnets=("10.0.0.0/16",),
        version=1,
        endpoints=endpoints,
        services=(ServiceRecord(service_id="s", name="web", vips=("10.0.0.2",)),),
    )


def sandbox(number: int) -> Sandbox:
    record = endpoint(number, ready=False)
    attachment = Attachment(network_id="net1", endpoint_id=record.endpoint_id, addresses=(f"{record.addresses[0]}/16",))
    return Sandbox(sandbox_id=f"c{number}", hostname=f"c{number}", attachments=(attachment,))


class Clock:
    """Wall time and this process's own CPU time of a step."""

    def __enter__(self) -> Clock:
        self._wall, self._cpu = time.perf_counter(), cpu()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, cpu() - self._cpu


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory_kib() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def names_cpu(directory: Path) -> float:
    """CPU seconds of the process that answers names."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(directory / "run" / "resolver-").encode() in (process / "cmdline").read_bytes():
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


async def at_rest(host: OverlayHost, directory: Path, seconds: float) -> dict[str, float]:
    """Share of a core, in percent, while nothing happens but verification; what is new was looked at before."""

    async def watch() -> None:
        async for finding in host.watch(60.0, lambda: False):
            print(finding)

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        await asyncio.sleep(6)
        names = names_cpu(directory)
        with Clock() as rest:
            await asyncio.sleep(seconds)
        names = names_cpu(directory) - names
        watching.cancel()
    return {"rest_daemon_percent": 100 * rest.cpu / rest.wall, "rest_names_percent": 100 * names / rest.wall}


async def measure(directory: Path, count: int, updates: int, rest_s: float) -> dict[str, float]:
    config = OverlayConfig(run_dir=directory / "run", state_dir=directory / "state", node_address=ADDRESS)
    host = await OverlayHost.open(config)
    figures: dict[str, float] = {}
    try:
        await host.apply_table(table(tuple(endpoint(number, ready=False) for number in range(count))))
        before = memory_kib()
        with Clock() as attach:
            await asyncio.gather(*(host.attach(sandbox(number)) for number in range(count)))
        figures["attach_ms_each"] = 1000 * attach.wall / count
        figures["attach_cpu_ms_each"] = 1000 * attach.cpu / count
        figures["memory_kib_per_sandbox"] = (memory_kib() - before) / count
        if rest_s:
            figures.update(await at_rest(host, directory, rest_s))
        with Clock() as change:
            for version in range(1, updates + 1):
                await apply(host, version, endpoint(version % count, ready=version % 2 == 1))
        figures["ready_change_ms"] = 1000 * change.wall / updates
        figures["vip_updates_per_second"] = updates * count / change.wall
        figures["vip_update_cpu_us"] = 1e6 * change.cpu / (updates * count)
        with Clock() as unready:
            for version in range(updates + 1, 2 * updates + 1):
                await apply(host, version, endpoint(100_000 % 60_000, ready=False, node="192.0.2.9"))
        figures["endpoint_change_without_vip_ms"] = 1000 * unready.wall / updates
        await host.close()
        with Clock() as reopen:
            host = await OverlayHost.open(config)
        figures["take_over_s"] = reopen.wall
        with Clock() as verify:
            problems = await host.verify()
        figures["verify_s"], figures["verify_problems"] = verify.wall, len(problems)
        with Clock() as detach:
            await asyncio.gather(*(host.detach(f"c{number}") for number in range(count)))
        figures["detach_ms_each"] = 1000 * detach.wall / count
    finally:
        with Clock() as destroy:
            await host.destroy()
        figures["destroy_s"] = destroy.wall
    return figures


async def apply(host: OverlayHost, version: int, record: EndpointRecord) -> None:
    delta = TableDelta(network_id="net1", from_version=version, version=version + 1, upsert_endpoints=(record,))
    assert await host.apply_delta(delta)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sandboxes", type=int, default=100)
    parser.add_argument("--updates", type=int, default=50)
    parser.add_argument("--rest", type=float, default=0.0, help="seconds to measure what it takes at rest")
    options = parser.parse_args()
    if [name for _index, name in socket.if_nameindex()] != ["lo"]:
        raise SystemExit("run it in namespaces of its own: unshare -n -m --propagation private <this command>")
    for command in (
        ("link", "set", "lo", "up"),
        ("link", "add", "underlay", "type", "veth", "peer", "name", "far"),
        ("address", "add", f"{ADDRESS}/24", "dev", "underlay"),
        ("link", "set", "underlay", "up"),
        ("link", "set", "far", "up"),
    ):
        subprocess.run(["ip", *command], check=True)
    with tempfile.TemporaryDirectory() as directory:
        figures = asyncio.run(measure(Path(directory), options.sandboxes, options.updates, options.rest))
    print(json.dumps({key: round(value, 3) for key, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()

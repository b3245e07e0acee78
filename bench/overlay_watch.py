"""What continuous verification costs while nothing happens: CPU of this process with many sandboxes.

unshare -n -m --propagation private .venv/bin/python bench/overlay_watch.py [SANDBOXES] [SECONDS]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pyswarm_overlay import Attachment, EndpointRecord, NetworkTable, OverlayConfig, OverlayHost, Sandbox, ServiceRecord

ADDRESS = "192.0.2.1"


def table(count: int) -> NetworkTable:
    endpoints = tuple(
        EndpointRecord(
            endpoint_id=f"t{number}",
            name=f"web.{number}",
            addresses=(address(number),),
            node_address=ADDRESS,
            service_id="s",
            ready=True,
        )
        for number in range(count)
    )
    services = (ServiceRecord(service_id="s", name="web", vips=("10.0.255.2",)),)
    return NetworkTable(
        network_id="n", name="n", vni=4097, subnets=("10.0.0.0/16",), version=1, endpoints=endpoints, services=services
    )


def address(number: int) -> str:
    return f"10.0.{1 + number // 200}.{10 + number % 200}"


async def used(host: OverlayHost, seconds: float, *, watching: bool) -> float:
    """CPU seconds of this process, per second."""

    async def watch() -> None:
        async for finding in host.watch(30.0, lambda: False):
            sys.stdout.write(f"found: {finding}\n")

    task = asyncio.create_task(watch()) if watching else None
    await asyncio.sleep(5)  # what is looked at once in the beginning
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    share = (time.process_time() - cpu) / (time.monotonic() - began)
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return share


async def main(count: int, seconds: float) -> None:
    for command in (
        "link set lo up",
        "link add eth0 type bridge",
        f"address add {ADDRESS}/24 dev eth0",
        "link set eth0 up",
    ):
        subprocess.run(["ip", *command.split()], check=True)  # noqa: ASYNC221
    with tempfile.TemporaryDirectory() as directory:
        config = OverlayConfig(
            run_dir=Path(directory) / "run", state_dir=Path(directory) / "state", node_address=ADDRESS, upstream_dns=()
        )
        host = await OverlayHost.open(config)
        await host.apply_table(table(count))
        for number in range(count):
            place = Attachment(network_id="n", endpoint_id=f"t{number}", addresses=(f"{address(number)}/16",))
            await host.attach(Sandbox(sandbox_id=f"c{number}", hostname=f"c{number}", attachments=(place,)))
        alone = await used(host, seconds, watching=False)
        watched = await used(host, seconds, watching=True)
        began = time.monotonic()
        report = await host.check(repair=False)
        took_s = time.monotonic() - began
        sys.stdout.write(
            f"{count} sandboxes at rest: {100 * alone:.2f} % of a CPU unwatched, {100 * watched:.2f} % watched\n"
        )
        sys.stdout.write(f"one look at everything: {took_s:.2f} s, {len(report.findings)} problems\n")
        await host.destroy()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    asyncio.run(main(int(arguments[0]) if arguments else 100, float(arguments[1]) if arguments[1:] else 30.0))

"""How many names a second one host answers, and how late: also while its daemon attaches sandboxes and takes changes.

Run as root: `unshare -n -m --propagation private .venv/bin/python -m bench.dns`. It programs the namespace that it runs
in, so it refuses any but a new one. The client is Debian's `dnsperf`, inside a sandbox; client, daemon and whoever
answers share the machine's cores; the client runs at real-time priority, so that its own waiting is not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from io import BufferedWriter
from pathlib import Path
from typing import Any

from bench.overlay_attach import ADDRESS, apply, endpoint, sandbox, table
from pyswarm_overlay import OverlayConfig, OverlayHost

_ANSWER = re.compile(r"^> \S+ \S+ \S+ ([0-9.]+)$", re.MULTILINE)
_QUESTIONS = ("web A", "web AAAA", "tasks.web A", "web.7 A", "web.8.web A", "2.0.0.10.in-addr.arpa PTR")
_ENDPOINTS = 1000


def figures_of(output: str) -> dict[str, float]:
    """From what dnsperf prints."""

    def number(label: str) -> float:
        found = re.search(rf"{label}:\s+([0-9.]+)", output)
        assert found is not None, output
        return float(found.group(1))

    times = sorted(map(float, _ANSWER.findall(output)))
    found = {"queries_per_second": number("Queries per second"), "lost": number("Queries lost")}
    found["average_ms"] = 1000 * number(r"Average Latency \(s\)")
    for name, part in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999)):
        found[name] = 1000 * times[int(part * len(times))]
    found["worst_ms"] = 1000 * times[-1]
    return {name: round(value, 3) for name, value in found.items()}


async def ask(netns: str, questions: Path, seconds: float, rate: int | None) -> dict[str, float]:
    """At most `rate` questions a second; None: as many as are answered."""
    with questions.with_name("report").open("wb") as report:
        return await _ask(netns, questions, seconds, rate, report)


async def _ask(
    netns: str, questions: Path, seconds: float, rate: int | None, report: BufferedWriter
) -> dict[str, float]:
    limit = () if rate is None else ("-Q", str(rate))
    process = await asyncio.create_subprocess_exec(
        *(
            "nsenter",
            f"--net={netns}",
            "chrt",
            "-r",
            "1",
            "dnsperf",
            "-s",
            "127.0.0.11",
            "-d",
            str(questions),
            "-l",
            str(seconds),
        ),
        *("-q", "200", "-c", "20", "-v", *limit),
        stdout=report,
        stderr=report,
    )
    await process.wait()
    return figures_of(Path(report.name).read_text())


async def beside(asked: Awaitable[dict[str, float]], work: Callable[[], Awaitable[None]]) -> dict[str, float]:
    """Ask while the work is repeated; it is finished before this returns."""
    asking = asyncio.ensure_future(asked)
    rounds = 0
    while not asking.done():
        await work()
        rounds += 1
    return {**await asking, "rounds_of_work": rounds}


async def measure(directory: Path, seconds: float, rate: int) -> dict[str, Any]:
    config = OverlayConfig(run_dir=directory / "run", state_dir=directory / "state", node_address=ADDRESS)
    questions = directory / "questions"
    questions.write_text("".join(f"{question}\n" for question in _QUESTIONS))
    host = await OverlayHost.open(config)
    version = 1

    async def come_and_go() -> None:
        await asyncio.gather(*(host.attach(sandbox(number)) for number in range(1, 101)))
        await asyncio.gather(*(host.detach(f"c{number}") for number in range(1, 101)))

    async def change() -> None:
        nonlocal version
        await apply(host, version, endpoint(version % 7, ready=version % 2 == 1))
        version += 1
        await asyncio.sleep(0.02)

    try:
        await host.apply_table(table(tuple(endpoint(number, ready=number < 50) for number in range(_ENDPOINTS))))
        netns = await host.attach(sandbox(0))
        await ask(netns, questions, 1, rate)
        return {
            f"{rate} a second": await ask(netns, questions, seconds, rate),
            "… 100 sandboxes come and go": await beside(ask(netns, questions, seconds, rate), come_and_go),
            "… 50 changes of the table a second": await beside(ask(netns, questions, seconds, rate), change),
            "as many as can be": await ask(netns, questions, seconds, None),
        }
    finally:
        await host.destroy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=int, default=10_000)
    options = parser.parse_args()
    if os.geteuid() != 0 or [name for _index, name in socket.if_nameindex()] != ["lo"]:
        raise SystemExit("run it as root in namespaces of its own: unshare -n -m --propagation private <this command>")
    if shutil.which("dnsperf") is None:
        raise SystemExit("dnsperf is missing: apt-get install dnsperf")
    for command in (
        ("link", "set", "lo", "up"),
        ("link", "add", "underlay", "type", "veth", "peer", "name", "far"),
        ("address", "add", f"{ADDRESS}/24", "dev", "underlay"),
        ("link", "set", "underlay", "up"),
        ("link", "set", "far", "up"),
    ):
        subprocess.run(["ip", *command], check=True)
    with tempfile.TemporaryDirectory() as directory:
        figures = asyncio.run(measure(Path(directory), options.seconds, options.rate))
    print(json.dumps(figures, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()

"""Measure the managers of pyswarm, etcd and Docker Swarm, one system after the other; print a table, write JSON.

    python -m bench.consensus [--seconds 5] [--kills 50] [--docker-kills 3] [--systems pyswarm,etcd,docker] [--out FILE]

All members and clients share the machine's cores, so rates are floors; compare columns of one run. A write is 256 bytes
in an object of the client's own, a read is linearizable. What is not installed is left out, and said.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from bench.consensus import docker, etcd, pyswarm
from bench.consensus.system import VALUE_BYTES, Client, Rate, System, clients, failover_s, rate

CLIENTS = (1, 16, 64)
Figures = dict[str, str]
Started = Callable[[], contextlib.AbstractAsyncContextManager[System]]


async def measure(system: System, seconds: float, kills: int) -> Figures:
    """Every figure of one system, by what was measured."""
    figures: Figures = {}
    leader = await system.leader()
    for count in CLIENTS:
        figures[f"writes, {count} clients"] = _show(await writes(system, leader, count, seconds))
    figures["creates, 16 clients"] = _show(await creates(system, leader, seconds))
    for where, member in (("leader", leader), ("follower", (leader + 1) % 3)):
        for count in (1, 16):
            figures[f"reads at the {where}, {count} clients"] = _show(await reads(system, member, count, seconds))
    figures["memory of each"] = ", ".join(f"{mib:.0f}" for mib in system.memory_mib()) + " MiB"
    figures[f"leader killed -> write, {kills} times"] = _spread([await failover_s(system, i) for i in range(kills)])
    return figures


async def writes(system: System, member: int, count: int, seconds: float) -> Rate:
    async with clients(system, member, count, f"write{count}-") as all_clients:
        await asyncio.gather(*(client.write("first") for client in all_clients))
        return await rate([_writer(client) for client in all_clients], seconds)


def _writer(client: Client) -> Callable[[], asyncio.Future[None]]:
    numbers = iter(range(sys.maxsize))
    return lambda: client.write(str(next(numbers)).zfill(VALUE_BYTES))  # type: ignore[return-value]


async def creates(system: System, member: int, seconds: float) -> Rate:
    numbers = iter(range(sys.maxsize))
    async with clients(system, member, 16, "create") as all_clients:
        calls = [lambda c=client: c.create(f"created{next(numbers)}") for client in all_clients]
        return await rate(calls, seconds)


async def reads(system: System, member: int, count: int, seconds: float) -> Rate:
    async with clients(system, member, count, f"read{member}-{count}-") as all_clients:
        await asyncio.gather(*(client.write("x" * VALUE_BYTES) for client in all_clients))
        return await rate([client.read for client in all_clients], seconds)


def _show(found: Rate) -> str:
    return f"{found.per_second:.0f}/s, p50 {found.p50_ms} ms, p99 {found.p99_ms} ms"


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "not measured"
    return f"median {statistics.median(seconds):.3f} s, {min(seconds):.3f}–{max(seconds):.3f} s"


SYSTEMS: dict[str, tuple[Started, Callable[[], bool]]] = {
    "pyswarm": (pyswarm.started, lambda: True),
    "etcd": (etcd.started, etcd.is_installed),
    "docker": (docker.started, docker.is_installed),
}


async def run(names: list[str], seconds: float, kills: int, docker_kills: int) -> dict[str, Figures]:
    table: dict[str, Figures] = {}
    for name in names:
        started, is_installed = SYSTEMS[name]
        if not is_installed():
            print(f"{name} is not installed: left out", file=sys.stderr)
            continue
        print(f"measuring {name} ...", file=sys.stderr)
        async with started() as system:
            table[name] = await measure(system, seconds, docker_kills if name == "docker" else kills)
    return table


def print_table(table: dict[str, Figures]) -> None:
    """As Markdown, a column per system."""
    print(f"| what | {' | '.join(table)} |")
    print("| --- |" + " --- |" * len(table))
    whats = dict.fromkeys(what.partition(",")[0] if "killed" in what else what for f in table.values() for what in f)
    for what in whats:
        cells = (next((v for k, v in figures.items() if k.startswith(what)), "–") for figures in table.values())
        print(f"| {what} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--docker-kills", type=int, default=3, help="each of its elections takes about ten seconds")
    parser.add_argument("--systems", type=lambda text: text.split(","), default=list(SYSTEMS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results/consensus.json")
    arguments = parser.parse_args()
    table = uvloop.run(run(arguments.systems, arguments.seconds, arguments.kills, arguments.docker_kills))
    arguments.out.write_text(json.dumps(table, indent=2))
    print_table(table)


if __name__ == "__main__":
    main()

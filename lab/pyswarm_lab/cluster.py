"""Forms a cluster on a lab's hosts with the very commands a user would type, and waits until every node is Ready."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from pyswarm_lab.errors import LabError
from pyswarm_lab.layout import RUN_DIR
from pyswarm_lab.records import HostRecord

_DAEMON_TIMEOUT_S = 30.0
_READY_TIMEOUT_S = 60.0
_POLL_S = 0.3
_PARALLEL_JOINS = 4
SOCKET = f"{RUN_DIR}/pyswarm.sock"
Say = Callable[[str], None]


class Hosts(Protocol):
    """What is needed of a lab."""

    @property
    def hosts(self) -> list[HostRecord]: ...
    def is_running(self, name: str) -> bool: ...
    def root(self, name: str) -> Path: ...
    def daemon_status(self, name: str) -> str: ...
    def log(self, name: str) -> str: ...
    def exec(self, name: str, argv: Sequence[str]) -> subprocess.CompletedProcess[str]: ...


def form_cluster(lab: Hosts, say: Say) -> None:
    """init on the first host, join on the others (managers one by one, workers at once), then wait for Ready."""
    hosts = lab.hosts
    wait_daemons(lab)
    first, *others = hosts
    init = ["pyswarm", "init", "--advertise-addr", first.address]
    run_told(lab, say, first.name, init)
    tokens = {role: _token(lab, first.name, role) for role in sorted({host.role for host in others})}
    # One manager after the other: each is a change of the Raft membership, and only one of those runs at a time.
    for host in others:
        if host.role == "manager":
            _join(lab, say, host, first, tokens["manager"])
    workers = [host for host in others if host.role == "worker"]
    with ThreadPoolExecutor(_PARALLEL_JOINS) as pool:
        list(pool.map(lambda host: _join(lab, say, host, first, tokens["worker"]), workers))
    wait_ready(lab, len(hosts))


def wait_daemons(lab: Hosts) -> None:
    """Until the socket of every running host's daemon is there."""
    deadline = time.monotonic() + _DAEMON_TIMEOUT_S
    for host in lab.hosts:
        if lab.is_running(host.name):
            _wait_daemon(lab, host.name, deadline)


def _wait_daemon(lab: Hosts, host: str, deadline: float) -> None:
    socket = lab.root(host) / SOCKET.lstrip("/")
    while not socket.exists():
        status = lab.daemon_status(host)
        if status.startswith("ended") or time.monotonic() > deadline:
            words = lab.log(host).strip().splitlines()[-1:] or ["its log is empty"]
            raise LabError(f"pyswarmd on {host} is not ready ({status}): {words[0][:300]}")
        time.sleep(0.05)


def run_told(lab: Hosts, say: Say, host: str, argv: list[str], shown: list[str] | None = None) -> str:
    """Say what is run where, run it, and return its output. Raises LabError with its words when it fails."""
    say(f"{host}$ {shlex.join(shown or argv)}")
    done = lab.exec(host, argv)
    if done.returncode != 0:
        raise LabError(f"`{argv[0]} {argv[1]}` failed on {host}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _token(lab: Hosts, host: str, role: str) -> str:
    done = lab.exec(host, ["pyswarm", "join-token", "-q", role])
    if done.returncode != 0:
        raise LabError(f"`pyswarm join-token` failed on {host}: {done.stderr.strip()}")
    return done.stdout.strip()


def _join(lab: Hosts, say: Say, host: HostRecord, first: HostRecord, token: str) -> None:
    argv = ["pyswarm", "join", "--token", token, "--advertise-addr", host.address, manager_address(first)]
    shown = [f"{token[:12]}…" if part == token else part for part in argv]
    run_told(lab, say, host.name, argv, shown)


def manager_address(host: HostRecord) -> str:
    """Where others join at it."""
    return f"[{host.address}]:2377" if ":" in host.address else f"{host.address}:2377"


def nodes(lab: Hosts, host: str) -> dict[str, dict[str, str]]:
    """What `pyswarm node ls` says on that host, by host name."""
    done = lab.exec(host, ["pyswarm", "node", "ls", "--format", "json"])
    if done.returncode != 0:
        raise LabError(f"`pyswarm node ls` failed on {host}: {done.stderr.strip()}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["Hostname"]: row for row in rows}


def wait_ready(lab: Hosts, count: int, host: str | None = None, timeout_s: float = _READY_TIMEOUT_S) -> None:
    """Until `count` nodes are Ready, as the given (or first running) host sees them."""
    asked = host or next(record.name for record in lab.hosts if lab.is_running(record.name))
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            seen = nodes(lab, asked)
        except LabError:
            if time.monotonic() > deadline:
                raise
            seen = {}
        ready = [name for name, row in seen.items() if row["Status"] == "Ready"]
        if len(ready) >= count:
            return
        if time.monotonic() > deadline:
            states = ", ".join(f"{name} {row['Status']}" for name, row in sorted(seen.items()))
            raise LabError(f"Only {len(ready)} of {count} nodes are Ready after {timeout_s:.0f} s: {states}.")
        time.sleep(_POLL_S)

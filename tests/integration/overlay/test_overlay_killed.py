"""Daemons that are killed at random points of what they do: the next one completes or removes what they left.

Each point: a change begins, the daemon dies at a random step of it, another one starts. That one must find nothing
wrong and leave nothing that belongs to nobody; and once the change was asked for again, the kernel must hold what it
holds where nobody was killed, as the tools of administrators read it.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kernel_reader import difference, everything
from overlay_damage import NETWORKS, ingress_table, sandbox, table
from overlay_lab import ROOT, Host, Lab, Refused, lab_of

from pyswarm_overlay import IngressBackend, IngressPort, NetworkTable

POINTS = int(os.environ.get("PYSWARM_KILLS", "40"))
pytestmark = [pytest.mark.root, pytest.mark.timeout(max(300, 5 * POINTS))]

ZYGOTE = Path(__file__).with_name("overlay_zygote.py")
PATIENCE_S = 60.0
SEED = int(os.environ.get("PYSWARM_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
LOOSE = (
    (re.compile(r"172\.18\.\d+\.(?!0/)\d+"), "WAY-OUT"),
    (re.compile(r"fd70:7973:7761:726d::[0-9a-f]+"), "WAY-OUT-6"),
    (re.compile(r"02:42:ac:12(:[0-9a-f]{2}){2}"), "WAY-OUT-MAC"),
    (re.compile(r'("addr": "127\.0\.0\.11", "port": )\d+'), r"\1PORT"),
)
"""What a sandbox gets anew each time it is made."""


class Driven:
    """One daemon, forked by the zygote."""

    def __init__(self, path: str, config: dict[str, Any]) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(60)
        self._socket.connect(path)
        self._file = self._socket.makefile("rb")
        self.call("open", config)

    def call(self, method: str, *arguments: Any) -> Any:
        """Raises EOFError when it dies of it."""
        try:
            self._socket.sendall(msgspec.json.encode([method, arguments]) + b"\n")
            line = self._file.readline()
        except ConnectionError:
            line = b""
        if not line:
            raise EOFError
        answer = msgspec.json.decode(line)
        if "error" in answer:
            raise Refused(answer["error"], answer["message"])
        return answer["ok"]

    def kill(self) -> None:
        """It kills itself when nobody is there to tell it anything: wait for that."""
        self._socket.shutdown(socket.SHUT_WR)
        while self._file.read(4096):
            pass
        self._file.close()
        self._socket.close()


@dataclass(frozen=True)
class Change:
    """Between two states of a host. `do` and `undo` are given the daemon."""

    name: str
    do: Callable[[Any], None]
    undo: Callable[[Any], None]


@pytest.fixture
def killing(tmp_path: Path) -> Iterator[tuple[Lab, Host, Callable[[], Driven]]]:
    with lab_of(tmp_path, hosts=2) as lab:
        host = lab.hosts[0]
        paths = os.pathsep.join([str(ROOT / "overlay"), str(ROOT / "common"), str(Path(__file__).parent)])
        path = str(tmp_path / "zygote")
        zygote = subprocess.Popen(
            ["nsenter", "-t", str(host.pid), "-m", "-n", sys.executable, ZYGOTE, path],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert zygote.stdout is not None
        assert zygote.stdout.readline() == b"ready\n"
        config = json.loads(msgspec.json.encode(host.config, enc_hook=str))
        try:
            yield lab, host, lambda: Driven(path, config)
        finally:
            zygote.kill()
            zygote.wait()


def changes(lab: Lab) -> list[Change]:
    """Everything a host is asked for."""
    hosts = lab.hosts
    blue = table(hosts, 1, "blue")
    mixed = sandbox(1, "blue", 3)
    backend = IngressBackend(endpoint_id="i1", ingress_addresses=("10.255.0.11",), node_address=hosts[0].address)
    port = IngressPort(published_port=8080, target_port=80, service_id="s-blue", backends=(backend,))
    third = NetworkTable(network_id="third", name="third", vni=5003, subnets=("10.0.3.0/24",), version=1)

    def fewer(count: int) -> NetworkTable:
        return msgspec.structs.replace(blue, version=blue.version + count, endpoints=blue.endpoints[:count])

    def attach(daemon: Any) -> None:
        daemon.call("attach", mixed)

    def detach(daemon: Any) -> None:
        daemon.call("detach", mixed.sandbox_id)

    return [
        Change("attach", attach, detach),
        Change(
            "table",
            lambda daemon: daemon.call("apply_table", fewer(2)),
            lambda daemon: daemon.call("apply_table", blue),
        ),
        Change(
            "network",
            lambda daemon: daemon.call("apply_table", third),
            lambda daemon: daemon.call("remove_network", "third"),
        ),
        Change(
            "ingress",
            lambda daemon: daemon.call("set_ingress", ["10.255.0.2/24"], [port]),
            lambda daemon: daemon.call("set_ingress", [], []),
        ),
    ]


def reading(host: Host, daemon: Driven) -> Any:
    """What the kernel holds, known to the daemon or not; what is new each time left out."""
    run_dir = Path(f"/proc/{host.pid}/root{host.config.run_dir}")
    networks = [path.name for path in (run_dir / "overlays").iterdir()]
    sandboxes = [path.name for path in (run_dir / "netns").iterdir()]
    assert set(sandboxes) == set(daemon.call("sandboxes"))
    return plain(everything(host, sandboxes, networks))


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted((plain(inner) for inner in value), key=str)
    if isinstance(value, str):
        for pattern, instead in LOOSE:
            value = pattern.sub(instead, value)
    return value


def measured(host: Host, daemon: Driven, change: Change) -> tuple[tuple[int, int], Any, Any]:
    """How many steps doing and undoing take, and what the kernel holds afterwards: undone, done."""
    undone = reading(host, daemon)
    begun = daemon.call("steps")
    change.do(daemon)
    done_at = daemon.call("steps")
    done = reading(host, daemon)
    settled = daemon.call("steps")
    change.undo(daemon)
    steps = done_at - begun, daemon.call("steps") - settled
    assert odd_after_a_while(host, daemon, undone) == []
    return steps, undone, done


def odd_after_a_while(host: Host, daemon: Driven, wanted: Any) -> list[str]:
    """The kernel takes its time to remove what was in a namespace that is gone."""
    until = time.monotonic() + PATIENCE_S
    while True:
        odd = difference(wanted, reading(host, daemon))
        if not odd or time.monotonic() > until:
            return odd
        time.sleep(0.05)


def test_killed_at_random_points(killing: tuple[Lab, Host, Callable[[], Driven]]) -> None:
    print(f"seed {SEED}")
    lab, host, start = killing
    rng = random.Random(SEED)
    daemon = start()
    for number, name in enumerate(NETWORKS, 1):
        daemon.call("apply_table", table(lab.hosts, number, name))
    daemon.call("apply_table", ingress_table(lab.hosts))
    daemon.call("attach_all", [sandbox(1, "blue", 1), sandbox(2, "green", 1)])
    plan = [(change, *measured(host, daemon, change)) for change in changes(lab)]
    for point in range(POINTS):
        is_undoing = point % 2 == 1
        if not is_undoing:
            change, steps, undone, done = rng.choice(plan)
        act, wanted = (change.undo, undone) if is_undoing else (change.do, done)
        at = rng.randrange(1, steps[is_undoing] + 2)
        where = f"seed {SEED}, point {point}: {change.name}{' undone' if is_undoing else ''}, killed at step {at}"
        daemon = killed_and_started(daemon, act, at, start)
        assert daemon.call("verify") == [], where
        act(daemon)
        assert odd_after_a_while(host, daemon, wanted) == [], where


def killed_and_started(daemon: Driven, act: Callable[[Any], None], at: int, start: Callable[[], Driven]) -> Driven:
    daemon.call("arm", at)
    try:
        act(daemon)
    except EOFError:
        return start()
    daemon.kill()  # it had come to the end before
    return start()

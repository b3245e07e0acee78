"""What is measured of pyswarm: the metrics that `docker_swarm/run.py` measures of Docker Swarm, under the same names.

Each suite makes a lab of its own and removes it. Times are taken by a client on a host's socket, from the call to the
moment the Watch API tells of the last task. Nothing here is asserted.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.client import Client, running, service, wait_for
from bench.docker_swarm.measure import Results, locked
from bench.labs import IMAGE, Accounting, client, cluster, warm
from bench.memory import host_memory
from bench.network import suite_net, suite_tables
from pyswarm.v1 import types_pb2
from pyswarm_lab import Lab
from pyswarm_lab.cluster import wait_ready

OVERLAY_SUBNET = "10.90.0.0/20"


def suite_single(results: Results, repetitions: int) -> None:
    """One node: one replica up and away again, and what a user at a terminal waits for."""
    with cluster() as lab, client(lab) as api:
        accounting = Accounting(lab)
        warm(lab, api)
        networks = {"host": "host", "bridge": "", "overlay": api.create_network("bench", OVERLAY_SUBNET)}
        for net, network_id in networks.items():
            for i in range(repetitions + 2):
                with locked(accounting) as window:
                    sid = api.create_service(service(f"one{net}{i}", IMAGE, 1, network_id=network_id))
                    api.wait_running(sid, 1)
                    results.add("create_one_running_s", window.elapsed(), "s", {"net": net}, **window.stats())
                with locked(accounting) as window:
                    api.remove_service(sid)
                    api.wait_gone(sid)
                    results.add("rm_one_gone_s", window.elapsed(), "s", {"net": net})
        for argv in (["pyswarm", "service", "ls"], ["pyswarm", "--help"]):
            for _ in range(repetitions + 2):
                with locked(accounting) as window:
                    lab.exec("n1", argv, check=True)
                    results.add("cli_ms", window.elapsed() * 1000, "ms", {"command": " ".join(argv)})


def suite_scale(results: Results, repetitions: int, count: int = 100) -> None:
    """0 -> 100 -> 0 on one node, on the host's network and on an overlay."""
    for net in ("host", "overlay"):
        with cluster() as lab, client(lab) as api:
            warm(lab, api)
            network_id = api.create_network("bench", OVERLAY_SUBNET) if net == "overlay" else net
            _scale(results, lab, api, network_id, {"n": count, "net": net, "nodes": 1}, repetitions)


def suite_join(results: Results, repetitions: int, count: int = 100) -> None:
    """0 -> 100 over five nodes, on an overlay."""
    with cluster(3, 2) as lab, client(lab) as api:
        warm(lab, api)
        network_id = api.create_network("bench", OVERLAY_SUBNET)
        _scale(results, lab, api, network_id, {"n": count, "net": "overlay", "nodes": 5}, repetitions)


def _scale(results: Results, lab: Lab, api: Client, network_id: str, params: dict[str, object], reps: int) -> None:
    accounting, count = Accounting(lab), int(str(params["n"]))
    for i in range(reps):
        sid = api.create_service(service(f"scale{i}", IMAGE, 0, network_id=network_id))
        with locked(accounting) as window:
            api.scale(sid, count)
            api.wait_running(sid, count, 300)
            wall, stats = window.elapsed(), window.stats()
        per_task = round(stats["lab_cpu_s"] * 1000 / count, 1)
        results.add("scale_up_s", wall, "s", params, cpu_ms_per_task=per_task, **stats)
        with locked(accounting) as window:
            api.scale(sid, 0)
            api.wait_gone(sid, 300)
            results.add("scale_down_s", window.elapsed(), "s", params, **window.stats())
        api.remove_service(sid)


def suite_memory(results: Results, repetitions: int, count: int = 100) -> None:
    """What the daemons hold empty, and with 100 containers on an overlay; what they burn at rest."""
    for _ in range(repetitions):
        with cluster() as lab, client(lab) as api:
            network_id = api.create_network("bench", OVERLAY_SUBNET)
            time.sleep(5)
            _add_memory(results, lab, 0, "overlay")
            _add_idle_cpu(results, lab, 0, "overlay")
            sid = api.create_service(service("memory", IMAGE, count, network_id=network_id))
            api.wait_running(sid, count, 300)
            time.sleep(5)
            _add_memory(results, lab, count, "overlay")
            _add_idle_cpu(results, lab, count, "overlay")


def _add_idle_cpu(results: Results, lab: Lab, count: int, net: str) -> None:
    accounting = Accounting(lab)
    before, start = accounting.cpu_seconds(), time.monotonic()
    time.sleep(15)
    percent = (accounting.cpu_seconds() - before) / (time.monotonic() - start) * 100
    results.add("idle_cpu_percent_of_core", percent, "%", {"containers": count, "net": net, "nodes": 1})


def _add_memory(results: Results, lab: Lab, count: int, net: str) -> None:
    host = lab.hosts[0]
    assert host.init is not None
    kinds = host_memory(host.init.pid)
    for kind, (processes, mib) in sorted(kinds.items()):
        results.add("pss_mib", mib, "MiB", {"process": kind, "containers": count, "net": net}, count=processes)
    total = sum(mib for _, mib in kinds.values())
    results.add("pss_total_mib", total, "MiB", {"containers": count, "net": net})


def suite_leader(results: Results, repetitions: int) -> None:
    """Three managers, two workers: the leader's manager is killed, or its host loses power, until another writes."""
    with cluster(3, 2) as lab, client(lab) as first:
        sid = first.create_service(service("probe", IMAGE, 4, network_id="host", constraints=("node.role==worker",)))
        first.wait_running(sid, 4)
        wanted = itertools.count(5)
        for how in ("sigkill", "poweroff"):
            for _ in range(repetitions):
                _lose_leader(results, lab, sid, next(wanted), how)


def _lose_leader(results: Results, lab: Lab, sid: str, want: int, how: str) -> None:
    time.sleep(3)
    with client(lab, "n1") as first:
        leader = _leader(first)
    other = next(h.name for h in lab.hosts[:3] if h.name != leader)
    with client(lab, other, 2.0) as api, locked(Accounting(lab)) as window:
        start = time.monotonic()
        lab.kill(leader, "manager" if how == "sigkill" else None)
        wait_for(_accepts(api, sid, want), 60)
        results.add("leader_update_accepted_s", time.monotonic() - start, "s", {"how": how})
        api.wait_running(sid, want)
        results.add("leader_update_running_s", time.monotonic() - start, "s", {"how": how}, **window.stats())
    if how == "poweroff":
        lab.start(leader)
    wait_ready(lab, 5)


def _accepts(api: Client, sid: str, want: int) -> Callable[[], bool]:
    def attempt() -> bool:
        api.scale(sid, want, timeout_s=1.0)
        return True

    return attempt


def _leader(api: Client) -> str:
    leaders = [n.description.hostname for n in api.nodes() if n.manager_status.leader]
    return leaders[0]


def suite_worker(results: Results, repetitions: int, count: int = 100) -> None:
    """100 tasks on five nodes; a worker host loses power."""
    with cluster(3, 2) as lab, client(lab) as api:
        warm(lab, api)
        for i in range(repetitions):
            _lose_worker(results, lab, api, lab.hosts[3 + i % 2].name, count)


def _lose_worker(results: Results, lab: Lab, api: Client, victim: str, count: int) -> None:
    params = {"how": "poweroff", "n": count, "nodes": 5}
    sid = api.create_service(service("spread", IMAGE, count, network_id="host"))
    api.wait_running(sid, count)
    time.sleep(2)
    node_id = next(n.id for n in api.nodes() if n.description.hostname == victim)
    with locked(Accounting(lab)) as window:
        start = time.monotonic()
        lab.kill(victim)
        results.add("worker_down_s", wait_for(lambda: _is_down(api, node_id), 60), "s", params)
        api.wait_tasks(sid, lambda tasks: _elsewhere(tasks, node_id) >= count)
        results.add("worker_tasks_elsewhere_s", time.monotonic() - start, "s", params, **window.stats())
    start = time.monotonic()
    lab.start(victim)
    wait_ready(lab, len(lab.hosts))
    results.add("worker_back_ready_s", time.monotonic() - start, "s", params)
    api.remove_service(sid)
    api.wait_gone(sid)


def _is_down(api: Client, node_id: str) -> bool:
    return any(n.id == node_id and n.status.state == types_pb2.NODE_STATE_DOWN for n in api.nodes())


def _elsewhere(tasks: dict[str, types_pb2.Task], node_id: str) -> int:
    return sum(1 for task in running(tasks) if task.node_id != node_id)


SUITES = {
    "single": suite_single,
    "scale": suite_scale,
    "join": suite_join,
    "leader": suite_leader,
    "worker": suite_worker,
    "memory": suite_memory,
    "net": suite_net,
    "tables": suite_tables,
}
_OURS_ALONE = {"tables"}
DOCKER_SWARM = Path(__file__).parent / "docker_swarm" / "run.py"


_DOCKER_OPTIONS = {
    "scale": ["--sizes", "100", "--nets", "host,overlay"],
    "join": ["--nets", "overlay"],
    "leader": ["--how", "sigkill,poweroff"],
    "worker": ["--how", "poweroff"],
    "memory": ["--nets", "overlay"],
}


def docker_suite(name: str, out: Path, repetitions: int) -> bool:
    """The same suite of a real Docker Swarm, into a JSON file; False when it failed, or there is none."""
    if name in _OURS_ALONE:
        return False
    options = ["--reps", str(repetitions), "--out", str(out), *_DOCKER_OPTIONS.get(name, [])]
    return subprocess.run([sys.executable, str(DOCKER_SWARM), name, *options], check=False).returncode == 0

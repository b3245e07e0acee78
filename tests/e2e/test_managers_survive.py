"""Real managers are killed, frozen, cut off and starved of disk while clients write: nothing acknowledged is lost.

What the clients saw must be linearizable, every acknowledged object must be there on every manager at the end, and the
managers' stores must be equal. The tests are a story on one lab; each leaves three managers that work.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from e2e_cluster import Cluster, eventually, lab_with_clean_end
from history_clients import REGISTERS, Recorder, clients

from pyswarm_lab.processes import send_signal
from pyswarm_simulator.linearizability import check

HOSTS = ("n1", "n2", "n3")
BEFORE, DURING, AFTER = 20, 20, 40
"""Acknowledged writes before, in and after a fault that leaves a majority."""


@pytest.fixture(scope="module")
def managers() -> Iterator[Cluster]:
    """Three managers; the state of n3's manager is on a small disk of its own."""
    for cluster in lab_with_clean_end(f"survive-{os.getpid()}", "--managers", "3", "--workers", "0"):
        for name in REGISTERS:
            cluster.run("n1", "service", "create", "-d", "--name", name, "--replicas", "0", "none")
        _move_to_small_disk(cluster, "n3")
        yield cluster


def _move_to_small_disk(cluster: Cluster, host: str) -> None:
    """The manager's files on a tmpfs of 40 MB, in the host's own mount namespace."""
    cluster.lab.kill(host, "pyswarmd")
    script = (
        "set -e; d=/var/lib/pyswarm/manager; cp -a $d /tmp/manager-was; mount -t tmpfs -o size=40m,mode=700 disk $d; "
        "cp -a /tmp/manager-was/. $d/; rm -r /tmp/manager-was"
    )
    done = cluster.on(host, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    cluster.lab.start(host)
    _all_vote(cluster)


def _all_vote(cluster: Cluster) -> None:
    def statuses() -> bool:
        nodes = cluster.nodes("n1")
        return sorted(status for _, status in nodes.values()) == ["Leader", "Reachable", "Reachable"]

    eventually(statuses, "three managers that vote")


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def writing(managers: Cluster, recorder: Recorder) -> Iterator[Callable[[int], None]]:
    """Clients at all three managers while a test runs; afterwards their whole history is judged."""
    sockets = [managers.lab.root(host) / "run/pyswarm/pyswarm.sock" for host in HOSTS]
    with clients(sockets, recorder) as wait_writes:
        wait_writes(BEFORE)
        yield wait_writes
        wait_writes(AFTER)
    _all_vote(managers)
    _nothing_was_lost(managers, recorder)


def _nothing_was_lost(cluster: Cluster, recorder: Recorder) -> None:
    verdict = check(recorder.history)
    assert verdict.ok, verdict.explain()
    for host in HOSTS:
        names = set(cluster.run(host, "service", "ls", "--format", "{{.Name}}").split())
        assert recorder.created <= names, (host, sorted(recorder.created - names))
    checked = cluster.on("n1", "pyswarm", "operator", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_killed_leader(managers: Cluster, writing: Callable[[int], None]) -> None:
    managers.lab.kill(eventually(managers.leader, "a leader"), "manager")
    writing(DURING)


def test_a_frozen_leader_gives_no_stale_answers_when_it_wakes(
    managers: Cluster, writing: Callable[[int], None]
) -> None:
    frozen = managers.lab.processes(eventually(managers.leader, "a leader"), "manager")
    assert frozen
    try:
        assert all(send_signal(process, signal.SIGSTOP) for process in frozen)
        writing(DURING)
    finally:
        for process in frozen:
            send_signal(process, signal.SIGCONT)


def test_a_leader_that_is_cut_off(managers: Cluster, writing: Callable[[int], None]) -> None:
    leader = eventually(managers.leader, "a leader")
    managers.lab.cut(leader)
    try:
        writing(DURING)
    finally:
        managers.lab.heal(leader)


def test_a_full_disk_stops_one_manager_and_no_cluster(managers: Cluster, writing: Callable[[int], None]) -> None:
    filler = "/var/lib/pyswarm/manager/filler"
    managers.on("n3", "dd", "if=/dev/zero", f"of={filler}", "bs=64k")
    assert managers.on("n3", "df", "--output=avail", filler).stdout.split()[-1] == "0"
    try:
        writing(DURING * 3)
        assert managers.lab.processes("n3", "manager")
    finally:
        managers.on("n3", "rm", filler)


def test_a_full_disk_under_the_leader(managers: Cluster, writing: Callable[[int], None]) -> None:
    managers.run("n1", "operator", "raft", "transfer-leadership", "n3")
    filler = "/var/lib/pyswarm/manager/filler"
    managers.on("n3", "dd", "if=/dev/zero", f"of={filler}", "bs=64k")
    try:
        writing(DURING * 3)
    finally:
        managers.on("n3", "rm", filler)


def test_a_majority_killed_at_once(managers: Cluster, writing: Callable[[int], None]) -> None:
    for host in ("n1", "n2"):
        managers.lab.kill(host, "manager")
    writing(DURING)


def test_the_power_of_all_hosts(managers: Cluster, writing: Callable[[int], None]) -> None:
    del writing
    for host in ("n1", "n2"):
        managers.lab.kill(host)
    for host in ("n1", "n2"):
        managers.lab.start(host)

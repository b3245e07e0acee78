"""Backups and the two ways back, on real hosts: quorum lost with one manager left, then everything lost.

The tests are the chapters of one story and run in this order. The containers' pids, as each host sees them, tell
whether anything was restarted.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_cluster import IMAGE, Cluster, eventually, lab_with_clean_end, one_line_of

from pyswarm_lab.image import CHANGES, write_rootfs

MANAGERS = ("n1", "n2", "n3")
KEPT, WORKER = "n3", "n4"
PASSPHRASE = "correct horse battery"


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three managers and a worker; a service on all of them."""
    for made in lab_with_clean_end(f"bk-{os.getpid()}", "--managers", "3", "--workers", "1"):
        archive = tmp_path_factory.mktemp("image") / "rootfs.tar"
        write_rootfs(archive)
        changes = [part for change in CHANGES for part in ("--change", change)]
        made.run("n1", "image", "import", *changes, str(archive), IMAGE)
        made.run("n1", "service", "create", "--name", "web", "--replicas", "4", IMAGE)
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outside of the swarm, where the operator keeps things. The hosts of a lab see it."""
    return tmp_path_factory.mktemp("kept")


class Writer:
    """A client that makes networks one after the other, and knows which of them were acknowledged."""

    def __init__(self, swarm: Cluster, host: str) -> None:
        self._swarm, self._host = swarm, host
        self.acknowledged: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            name = f"written-{number}"
            done = self._swarm.on(self._host, "pyswarm", "network", "create", "-d", "overlay", name)
            if done.returncode == 0:
                self.acknowledged.append(name)
            number += 1


def pids(swarm: Cluster, host: str) -> list[str]:
    """Of the containers' own processes."""
    return sorted(swarm.on(host, "pgrep", "-f", "/bin/serve").stdout.split())


def networks(swarm: Cluster, host: str) -> set[str]:
    return set(swarm.run(host, "network", "ls", "--format", "{{.Name}}").split())


def test_a_backup_taken_while_clients_write_and_the_leader_dies_holds_all_that_was_acknowledged(
    swarm: Cluster, folder: Path
) -> None:
    follower = next(name for name in MANAGERS if name != swarm.leader())
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    key = swarm.run(follower, "backup", "key", "-q")
    (folder / "key").write_text(key)
    (folder / "worker-token").write_text(swarm.run(follower, "join-token", "-q", "worker"))
    with Writer(swarm, follower) as writer:
        eventually(lambda: len(writer.acknowledged) >= 3, "clients write")
        assert swarm.cli("lab", "kill", "--name", swarm.name, "--process", "manager", swarm.leader()).returncode == 0

        def backed_up() -> bool:
            acknowledged = list(writer.acknowledged)
            done = swarm.on(follower, "pyswarm", "backup", str(folder / "first"))
            (folder / "acknowledged").write_text("\n".join(acknowledged))
            return done.returncode == 0

        eventually(backed_up, "a backup is made although the leader was killed")
        seen = len(writer.acknowledged)
        eventually(lambda: len(writer.acknowledged) > seen, "clients go on writing")
    inspected = swarm.run(follower, "backup", "inspect", "--key-file", str(folder / "key"), str(folder / "first"))
    assert "verified with the key" in inspected
    refused = one_line_of(swarm.on(follower, "pyswarm", "backup", str(folder / "first")))
    assert "exists already" in refused


def test_a_backup_with_a_passphrase_goes_through_a_pipe(swarm: Cluster, folder: Path) -> None:
    given = ["backup", "--passphrase-file", str(folder / "passphrase"), "-"]
    argv = ["sh", "-c", f"pyswarm {' '.join(given)} > {folder / 'piped'}"]
    assert swarm.on("n2", *argv).returncode == 0
    options = ["--format", "json", "--key-file", str(folder / "passphrase")]
    facts = json.loads(swarm.run(WORKER, "backup", "inspect", *options, str(folder / "piped")))
    assert (facts["SealedWith"], facts["Objects"]["service"], facts["Services"]) == ("passphrase", 1, ["web"])
    assert [manager["Hostname"] for manager in facts["Managers"]] == list(MANAGERS)


def test_no_new_cluster_is_forced_while_there_is_a_leader(swarm: Cluster) -> None:
    eventually(swarm.leader, "a leader")
    assert "has a leader" in swarm.refused("n1", "init", "--force-new-cluster", "--yes")
    assert "can't be used" in swarm.refused(WORKER, "init", "--force-new-cluster", "--yes")
    assert "can't be used" in swarm.refused(WORKER, "backup")


def test_the_last_manager_goes_on_alone_and_no_container_notices(swarm: Cluster) -> None:
    eventually(lambda: len(swarm.running("web", KEPT)) == 4, "four replicas run")
    before = {host: pids(swarm, host) for host in (KEPT, WORKER)}
    assert all(before.values()), before
    for host in MANAGERS:
        if host != KEPT:
            assert swarm.cli("lab", "kill", "--name", swarm.name, host).returncode == 0
    eventually(lambda: swarm.on(KEPT, "pyswarm", "node", "ls").returncode != 0, "the quorum is lost")

    unasked = swarm.on(KEPT, "pyswarm", "init", "--force-new-cluster")
    assert unasked.returncode == 1
    assert "n1 " in unasked.stderr
    assert "n2 " in unasked.stderr
    assert unasked.stderr.splitlines()[-1].endswith("with --yes")
    forced = swarm.run(KEPT, "init", "--force-new-cluster", "--yes")
    assert "is its only manager" in forced
    assert "Nothing to do" in swarm.run(KEPT, "init", "--force-new-cluster", "--yes")

    for host, ran in before.items():
        assert set(ran) <= set(pids(swarm, host)), host
    eventually(lambda: swarm.nodes(KEPT).get(WORKER, ("", ""))[0] == "Ready", "the worker comes back by itself")
    swarm.run(KEPT, "service", "scale", "web=5")
    assert set(swarm.running("web", KEPT).values()) == {KEPT, WORKER}
    for host, ran in before.items():
        assert set(ran) <= set(pids(swarm, host)), host


def test_the_lost_managers_come_back_as_workers_and_can_be_managers_again(swarm: Cluster) -> None:
    lost = [host for host in MANAGERS if host != KEPT]
    for host in lost:
        assert swarm.cli("lab", "start", "--name", swarm.name, host).returncode == 0
    for host in lost:
        eventually(lambda host=host: swarm.nodes(KEPT)[host] == ("Ready", ""), f"{host} is a worker")
        eventually(lambda host=host: not swarm.lab.processes(host, "manager"), f"{host} has no manager")
    for host in lost:
        swarm.run(KEPT, "node", "promote", host)
    eventually(
        lambda: sorted(swarm.nodes(KEPT)[host][1] for host in MANAGERS) == ["Leader", "Reachable", "Reachable"],
        "three managers again",
    )


def test_a_manager_without_quorum_restores_in_place_and_its_containers_run_on(swarm: Cluster, folder: Path) -> None:
    given = ["--yes", "--key-file", str(folder / "key"), str(folder / "second")]
    swarm.run("n1", "backup", "-q", str(folder / "second"))
    assert "has a leader" in swarm.on(KEPT, "pyswarm", "restore", *given).stderr
    before = {host: pids(swarm, host) for host in (KEPT, WORKER)}
    node_id = swarm.run(KEPT, "info", "--format", "{{.Swarm.NodeID}}")
    for host in MANAGERS:
        if host != KEPT:
            assert swarm.cli("lab", "kill", "--name", swarm.name, host).returncode == 0
    swarm.on(KEPT, "sh", "-c", "rm /var/lib/pyswarm/manager/raft*")  # and the one that is left loses its log
    eventually(lambda: swarm.on(KEPT, "pyswarm", "node", "ls").returncode != 0, "the quorum is lost")
    swarm.run(KEPT, "restore", *given)
    assert swarm.run(KEPT, "info", "--format", "{{.Swarm.NodeID}}") == node_id
    eventually(lambda: swarm.nodes(KEPT).get(WORKER, ("", ""))[0] == "Ready", "the worker comes back by itself")
    eventually(lambda: len(swarm.running("web", KEPT)) == 5, "five replicas run")
    for host, ran in before.items():
        assert set(ran) <= set(pids(swarm, host)), host
    eventually(lambda: swarm.nodes(KEPT).get(KEPT) == ("Ready", "Leader"), "it leads, and its own node is ready")


def test_after_the_loss_of_everything_a_restore_refuses_what_is_not_the_whole_backup(
    swarm: Cluster, folder: Path
) -> None:
    swarm.cli("lab", "kill", "--name", swarm.name, KEPT)  # the others are down
    worker = swarm.on(WORKER, "pyswarm", "restore", "--yes", "--key-file", str(folder / "key"), str(folder / "first"))
    assert (worker.returncode, "can't be used" in worker.stderr.splitlines()[-1]) == (1, True)
    swarm.run(WORKER, "leave")
    whole, key = (folder / "first").read_bytes(), str(folder / "key")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for name, content in (("cut", whole[:-100]), ("flipped", bytes(flipped)), ("rubbish", b"rubbish")):
        (folder / name).write_bytes(content)
        said = swarm.refused(WORKER, "restore", "--yes", "--key-file", key, str(folder / name))
        assert "damaged" in said or "no backup of pyswarm" in said
    (folder / "other-key").write_text("SWMBAK-1-oops\n")
    wrong = ["--yes", "--key-file", str(folder / "other-key"), str(folder / "first")]
    assert "mistyped" in swarm.refused(WORKER, "restore", *wrong)
    unasked = swarm.on(WORKER, "pyswarm", "restore", "--key-file", key, str(folder / "first"))
    assert unasked.stderr.splitlines()[-1].endswith("with --yes")
    assert swarm.state_of(WORKER) == "inactive"


def test_a_restored_swarm_runs_its_services_and_lets_machines_join_with_the_tokens_of_before(
    swarm: Cluster, folder: Path
) -> None:
    given = ["--yes", "--key-file", str(folder / "key"), str(folder / "first")]
    assert "restored: current node" in swarm.run(WORKER, "restore", *given)
    assert set((folder / "acknowledged").read_text().split()) <= networks(swarm, WORKER)
    eventually(lambda: set(swarm.running("web", WORKER).values()) == {WORKER}, "the service runs on the new manager")
    token = (folder / "worker-token").read_text().strip()
    assert swarm.run(WORKER, "join-token", "-q", "worker").strip() == token

    assert swarm.cli("lab", "start", "--name", swarm.name, "n1").returncode == 0
    eventually(lambda: swarm.on("n1", "pyswarm", "leave", "--force").returncode == 0, "an old manager leaves")
    swarm.run("n1", "join", "--token", token, swarm.lab.host(WORKER).address)
    status = ["node", "ls", "--filter", "name=n1", "--format", "{{.Status}}"]
    assert "Ready" in swarm.run(WORKER, *status).split()
    swarm.run(WORKER, "service", "scale", "web=6")
    assert "n1" in swarm.running("web", WORKER).values()

    swarm.run(WORKER, "node", "promote", swarm.run("n1", "info", "--format", "{{.Swarm.NodeID}}").strip())
    peers = ["pyswarm", "operator", "raft", "list-peers", "--format", "{{.Role}}"]
    eventually(
        lambda: sorted(swarm.on(WORKER, *peers).stdout.split()) == ["leader", "voter"],
        "a second manager gets the restored state, which only a snapshot can bring, and votes",
    )


def test_the_backup_key_stays_out_of_logs_and_out_of_what_anybody_is_shown(swarm: Cluster, folder: Path) -> None:
    secret = (folder / "key").read_text().strip()
    for host in (KEPT, WORKER):
        log = swarm.lab.log(host)
        assert secret not in log
        assert PASSPHRASE not in log
    assert secret not in swarm.on(WORKER, "pyswarm", "info").stdout

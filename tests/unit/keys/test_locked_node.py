"""The node's own key under a lock, and the manager that is started with the master key."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.identity import NodeIdentity, RootAuthority, generate_key, key_to_pem, make_csr
from pyswarm_common.identity.locks import Locked, LockKey, WrongKey, is_locked
from pyswarm_common.model import NodeRole
from pyswarm_manager.credentials import LiveIdentity
from pyswarm_node.identity import CurrentIdentity
from pyswarm_node.machine_lock import MachineLock
from pyswarm_node.manager_process import ManagerProcess
from pyswarm_node.paths import NodeRecord, Options

KEY = LockKey(bytes(range(32)))
NODE, CLUSTER = "a" * 25, "c" * 25
RECORD = NodeRecord(node_id=NODE, cluster_id=CLUSTER, address="192.0.2.1", data_path_address="192.0.2.1")


def issue() -> NodeIdentity:
    root, key = RootAuthority.create(CLUSTER, time.time()), generate_key()
    names = {"node_id": NODE, "cluster_id": CLUSTER, "role": NodeRole.MANAGER}
    certificate = root.issue(make_csr(key), **names, now=time.time(), lifetime_s=3600)  # type: ignore[arg-type]
    return NodeIdentity(certificate, key_to_pem(key), root.cert_pem)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    options = Options(state_dir=tmp_path)
    issue().save(options.certificates)
    return options


def load(options: Options) -> tuple[CurrentIdentity, MachineLock]:
    """As at the start of a daemon."""
    lock = MachineLock(options.certificates)
    return CurrentIdentity.load(options, RECORD, lock), lock


def key_on_disk(options: Options) -> bytes:
    return (options.certificates / "node.key").read_bytes()


def test_a_locked_key_is_known_by_name_and_not_given_out(options: Options) -> None:
    identity, lock = load(options)
    whole = identity()
    lock.put_on(KEY)
    identity.relock()
    assert is_locked(key_on_disk(options))
    assert identity() == whole, "what runs goes on"

    again, lock = load(options)
    assert again.certified.node_id == NODE
    with pytest.raises(Locked):
        again()
    lock.open(KEY)
    again.unlock()
    assert again() == whole


def test_a_renewed_key_is_written_locked(options: Options) -> None:
    identity, lock = load(options)
    lock.put_on(KEY)
    renewed = issue()
    identity.replace(renewed)
    assert is_locked(key_on_disk(options))
    assert identity() == renewed
    again, lock = load(options)
    lock.open(KEY)
    again.unlock()
    assert again() == renewed


def test_a_lock_that_was_put_on_before_the_key_was_locked_closes_all_the_same(options: Options) -> None:
    """What a crash between the two leaves."""
    identity, lock = load(options)
    whole = identity()
    lock.put_on(KEY)
    again, lock = load(options)
    with pytest.raises(Locked):
        again()
    lock.open(KEY)
    again.unlock()
    assert again() == whole


def test_opened_for_good(options: Options) -> None:
    identity, lock = load(options)
    lock.put_on(KEY)
    identity.relock()
    identity.open_for_good()
    assert not is_locked(key_on_disk(options))
    lock.take_off()
    again, _ = load(options)
    assert again() == identity()


def test_a_locked_key_without_its_lock_is_said_to_be_one(options: Options) -> None:
    identity, lock = load(options)
    lock.put_on(KEY)
    identity.relock()
    (options.certificates / "node.lock").unlink()
    with pytest.raises(FailedPrecondition, match=r"its lock is missing: put node\.lock back"):
        load(options)


def test_a_damaged_locked_key_leaves_the_machine_locked(options: Options) -> None:
    identity, lock = load(options)
    lock.put_on(KEY)
    identity.relock()
    content = bytearray(key_on_disk(options))
    content[-1] ^= 1
    (options.certificates / "node.key").write_bytes(content)
    again, lock = load(options)
    lock.open(KEY)
    with pytest.raises(FailedPrecondition, match="is damaged"):
        again.unlock()
    assert lock.is_locked


def test_the_manager_reads_the_key_with_the_master_key_only(options: Options) -> None:
    identity, lock = load(options)
    lock.put_on(KEY)
    identity.relock()
    assert LiveIdentity(options.certificates, lock.master)() == identity()
    with pytest.raises(Locked):
        LiveIdentity(options.certificates)
    with pytest.raises(WrongKey):
        LiveIdentity(options.certificates, KEY)


async def test_the_manager_gets_the_master_key_by_a_pipe(tmp_path: Path) -> None:
    program = """import os, pathlib, sys
place = pathlib.Path(sys.argv[sys.argv.index("--state-dir") + 1])
seen = pathlib.Path("/proc/self/cmdline").read_bytes() + pathlib.Path("/proc/self/environ").read_bytes()
key = sys.stdin.buffer.read()
(place / "found").write_text(f"{key == bytes(range(32))} {key in seen} {'--locked' in sys.argv}")
"""
    options = Options(state_dir=tmp_path, run_dir=tmp_path)
    process = ManagerProcess(options, (sys.executable, "-S", "-c", program), master=lambda: KEY)
    process.start()
    async with asyncio.timeout(20):
        while not (tmp_path / "found").exists() or not (tmp_path / "found").read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await process.stop()
    assert (tmp_path / "found").read_text() == "True False True"

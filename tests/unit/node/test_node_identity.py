"""Which identity the daemon takes up at its start, and which it refuses."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.identity import NodeIdentity, RootAuthority, generate_key, key_to_pem, make_csr
from pyswarm_common.model import NodeRole
from pyswarm_node.identity import CurrentIdentity
from pyswarm_node.paths import NodeRecord, Options


def member(directory: Path, node_id: str, cluster_id: str) -> tuple[Options, NodeRecord]:
    """The state directory of a node."""
    options = Options(state_dir=directory)
    root, key = RootAuthority.create(cluster_id, time.time()), generate_key()
    certificate = root.issue(
        make_csr(key),
        node_id=node_id,
        cluster_id=cluster_id,
        role=NodeRole.WORKER,
        now=time.time(),
        lifetime_s=3600,
    )
    NodeIdentity(certificate, key_to_pem(key), root.cert_pem).save(options.certificates)
    record = NodeRecord(node_id=node_id, cluster_id=cluster_id, address="192.0.2.1", data_path_address="192.0.2.1")
    return options, record


def test_the_nodes_own(tmp_path: Path) -> None:
    options, record = member(tmp_path, "a" * 25, "c" * 25)
    identity = CurrentIdentity.load(options, record)()
    assert (identity.node_id, identity.cluster_id) == ("a" * 25, "c" * 25)


@pytest.mark.parametrize(
    ("node_id", "cluster_id", "words"),
    [("a" * 25, "d" * 25, "of another cluster"), ("b" * 25, "c" * 25, "of another node")],
)
def test_anothers(tmp_path: Path, node_id: str, cluster_id: str, words: str) -> None:
    options, record = member(tmp_path / "own", "a" * 25, "c" * 25)
    other, _ = member(tmp_path / "other", node_id, cluster_id)
    shutil.copytree(other.certificates, options.certificates, dirs_exist_ok=True)
    with pytest.raises(FailedPrecondition, match=words) as refused:
        CurrentIdentity.load(options, record)
    assert "\n" not in str(refused.value)
    assert "join again" in str(refused.value)


def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    options, record = member(tmp_path, "a" * 25, "c" * 25)
    (options.certificates / "node.key").write_bytes(key_to_pem(generate_key()))
    with pytest.raises(FailedPrecondition, match="do not belong together"):
        CurrentIdentity.load(options, record)


@pytest.mark.parametrize("name", ["node.crt", "node.key"])
def test_damaged_and_missing_files(tmp_path: Path, name: str) -> None:
    options, record = member(tmp_path, "a" * 25, "c" * 25)
    (options.certificates / name).write_bytes(b"")
    with pytest.raises(FailedPrecondition, match="are damaged"):
        CurrentIdentity.load(options, record)
    (options.certificates / name).unlink()
    with pytest.raises(FailedPrecondition, match="is missing"):
        CurrentIdentity.load(options, record)


def test_a_crash_in_the_middle_of_a_renewal(tmp_path: Path) -> None:
    options, record = member(tmp_path / "own", "a" * 25, "c" * 25)
    renewed, _ = member(tmp_path / "renewed", "a" * 25, "c" * 25)
    before, after = NodeIdentity.load(options.certificates), NodeIdentity.load(renewed.certificates)
    assert before is not None
    assert after is not None
    after.save(options.certificates / "next")
    (options.certificates / "next" / "node.crt").unlink()  # not all of it was written yet: the old one holds
    assert CurrentIdentity.load(options, record)() == before
    after.save(options.certificates / "next")
    (options.certificates / "node.key").write_bytes(after.key_pem)  # between the two files
    identity = CurrentIdentity.load(options, record)
    assert identity() == after
    identity.replace(before)
    assert CurrentIdentity.load(options, record)() == before
    assert sorted(path.name for path in options.certificates.iterdir()) == ["node.crt", "node.key", "root-ca.crt"]

"""The daemon's files: the record of a membership, and the lock against a second daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyswarm_common.errors import FailedPrecondition
from pyswarm_node.lock import DirectoryLock
from pyswarm_node.main import parse
from pyswarm_node.paths import NodeRecord, Options

RECORD = NodeRecord(node_id="n", cluster_id="c", address="2001:db8::1", data_path_address="192.0.2.1")


def test_the_record_comes_back(tmp_path: Path) -> None:
    options = Options(state_dir=tmp_path)
    assert NodeRecord.load(options) is None
    RECORD.save(options)
    assert NodeRecord.load(options) == RECORD
    assert options.record.stat().st_mode & 0o777 == 0o600
    assert RECORD.manager_address == "[2001:db8::1]:2377"


def test_a_damaged_record_is_said(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text("{")
    with pytest.raises(FailedPrecondition, match="is damaged"):
        NodeRecord.load(Options(state_dir=tmp_path))


def test_forgetting_keeps_the_images(tmp_path: Path) -> None:
    options = Options(state_dir=tmp_path)
    RECORD.save(options)
    for directory in (options.certificates, options.agent, tmp_path / "runtime"):
        directory.mkdir()
    options.forget_membership()
    assert [path.name for path in tmp_path.iterdir()] == ["runtime"]


def test_one_daemon_per_directory(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    with pytest.raises(FailedPrecondition, match=rf"another pyswarmd \(pid {os.getpid()}\) uses {tmp_path}"):
        DirectoryLock(tmp_path)
    lock.release()
    DirectoryLock(tmp_path).release()


def test_the_command_line(tmp_path: Path) -> None:
    options = parse(["--state-dir", str(tmp_path), "--agent-port", "7000"])
    assert (options.state_dir, options.agent_port, options.run_dir) == (tmp_path, 7000, Path("/run/pyswarm"))
    with pytest.raises(SystemExit):
        parse(["--agent-port", "70000"])

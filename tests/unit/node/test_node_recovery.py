"""Where a manager's state is while another takes its place: never lost, whatever fails in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyswarm.v1 import node_pb2
from pyswarm_common.errors import InvalidArgument
from pyswarm_node.local_manager import LocalManager
from pyswarm_node.machine_lock import MachineLock
from pyswarm_node.paths import Options
from pyswarm_node.recovery import Recovery
from pyswarm_node.standing import Standing


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(state_dir=tmp_path / "state", run_dir=tmp_path / "run")


@pytest.fixture
def manager(options: Options) -> LocalManager:
    write(options, "old")
    return LocalManager(options, MachineLock(options.certificates))


def write(options: Options, content: str) -> None:
    options.manager.directory.mkdir(parents=True, exist_ok=True)
    options.manager.database.write_text(content)


def test_what_failed_is_undone(options: Options, manager: LocalManager) -> None:
    manager.set_aside()
    assert not options.manager.directory.exists()
    write(options, "new")
    manager.put_back()
    assert options.manager.database.read_text() == "old"
    assert not options.manager_aside.exists()


def test_what_a_crash_left_is_undone_before_the_next_attempt(options: Options, manager: LocalManager) -> None:
    manager.set_aside()
    write(options, "half")
    manager.set_aside()
    manager.put_back()
    assert options.manager.database.read_text() == "old"


def test_what_holds_takes_the_place_of_the_old(options: Options, manager: LocalManager) -> None:
    manager.set_aside()
    write(options, "new")
    manager.forget_aside()
    manager.put_back()
    assert options.manager.database.read_text() == "new"


def test_a_manager_without_files_has_none_afterwards(options: Options, manager: LocalManager) -> None:
    options.manager.database.unlink()
    options.manager.directory.rmdir()
    manager.set_aside()
    write(options, "new")
    manager.put_back()
    assert not options.manager.database.exists()


async def test_a_restore_begins_with_its_header(options: Options) -> None:
    async def requests(*parts: node_pb2.RestoreRequest) -> object:
        for part in parts:
            yield part

    recovery = Recovery(options, None, Standing(options), None, None)  # type: ignore[arg-type]  # not asked
    for sent in ((), (node_pb2.RestoreRequest(data=b"x"),), (node_pb2.RestoreRequest(),)):
        with pytest.raises(InvalidArgument, match="header"):
            await recovery.restore(requests(*sent))  # type: ignore[arg-type]

"""A process is known by pid and start time together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm_lab.processes import ProcessRef, reference, running, send_signal, wait_gone


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_running_process_is_alive_and_a_killed_one_is_not_even_while_it_is_a_zombie(
    sleeper: subprocess.Popen[bytes],
) -> None:
    found = reference(sleeper.pid)
    assert found is not None
    assert found.is_alive()
    assert send_signal(found, signal.SIGKILL)
    assert wait_gone(found, 10)
    assert not found.is_alive()  # not waited for yet: a zombie
    assert reference(sleeper.pid) is None


def test_a_pid_that_is_used_again_by_another_process_is_never_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    found = reference(sleeper.pid)
    assert found is not None
    earlier = ProcessRef(found.pid, found.start_time - 1)
    assert not earlier.is_alive()
    assert not send_signal(earlier, signal.SIGKILL)
    assert wait_gone(earlier, 0)
    assert found.is_alive()


def test_processes_are_found_by_the_module_and_folder_they_were_started_with(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import time; time.sleep(60)", "-m", "some.module", str(tmp_path / "n1")]
    with subprocess.Popen(argv) as process:
        try:
            while not (found := running("some.module", tmp_path)):
                time.sleep(0.001)  # the kernel shows the arguments a moment after it has let the parent go on
            assert [one.pid for one in found] == [process.pid]
            assert running("some.module", tmp_path / "n2") == []
            assert running("other.module", tmp_path) == []
        finally:
            process.kill()


def test_this_process_is_known() -> None:
    found = reference(os.getpid())
    assert found is not None
    assert found.is_alive()

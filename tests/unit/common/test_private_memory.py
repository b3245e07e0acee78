"""A process that keeps its memory private is not dumped when it crashes; what it starts may be."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

CRASH = """
import os, resource, signal, sys
from pyswarm_common.private_memory import keep_memory_private
resource.setrlimit(resource.RLIMIT_CORE, (1 << 26, resource.getrlimit(resource.RLIMIT_CORE)[1]))
if sys.argv[1] == "private":
    keep_memory_private()
os.kill(os.getpid(), signal.SIGSEGV)
"""
DUMPABLE = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
ASK = f"""
import ctypes, subprocess, sys
from pyswarm_common.private_memory import keep_memory_private
keep_memory_private()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)
subprocess.run([sys.executable, "-c", {DUMPABLE!r}], check=True)
"""


def test_only_this_process_is_private() -> None:
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["0", "1"]


@pytest.mark.parametrize("how", ["private", "usual"])
def test_a_crash_leaves_no_core(how: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH, how], cwd=tmp_path, check=False, timeout=60)
    if done.returncode == 1:
        pytest.skip("the limit of core dumps cannot be raised here")
    assert done.returncode == -signal.SIGSEGV
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith("core"):  # elsewhere a program gets it, or another directory
        assert len(list(tmp_path.glob("core*"))) == (how == "usual")

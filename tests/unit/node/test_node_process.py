"""What the daemon does to its own process before anything else."""

from __future__ import annotations

import os
import subprocess
import sys

IMPORTS = """
import os
import pyswarm_node.main
print(os.environ["GRPC_ENABLE_FORK_SUPPORT"], os.environ["GRPC_VERBOSITY"])
"""
LIMIT = """
import resource
from pyswarm_node.limits import raise_open_files
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
assert raise_open_files() == hard
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""


def run(program: str, **environment: str) -> str:
    """In a process of its own, since it is about the process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    return subprocess.check_output([sys.executable, "-c", program], env={**kept, **environment}, text=True).strip()


def test_grpc_is_told_to_be_quiet_before_it_is_imported() -> None:
    assert run(IMPORTS) == "0 ERROR"
    assert run(IMPORTS, GRPC_VERBOSITY="DEBUG") == "0 DEBUG"


def test_the_limit_of_open_files_is_raised() -> None:
    run(LIMIT)

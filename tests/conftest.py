"""What every test gives back as it found it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Read when grpc is first imported: servers that tests kill would fill the report with its own lines.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# No test asserts a time: hypothesis's own limits would, on a busy machine.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
settings.load_profile("busy")


@pytest.fixture(autouse=True)
def same_umask() -> Iterator[None]:
    """A daemon's `main`, run in this process, makes its own files private; the next test's are not meant."""
    before = os.umask(0o022)
    yield
    os.umask(before)

"""What `service logs` shows before each line."""

from __future__ import annotations

import pytest

from pyswarm.v1 import logs_pb2
from pyswarm_cli.commands.service_logs import Form

MESSAGE = logs_pb2.LogMessage(
    task_id="t" * 25, task_name="web.2", node_id="n" * 25, node_hostname="n1", service_id="s" * 25
)
MESSAGE.timestamp.FromSeconds(1)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Form(), f"web.2.{'t' * 12}@n1    | "),
        (Form(no_task_ids=True), "web.2@n1    | "),
        (Form(no_trunc=True), f"web.2.{'t' * 25}@n1    | "),
        (Form(no_resolve=True), f"{'s' * 25}.2.{'t' * 12}@{'n' * 25}    | "),
        (Form(raw=True), ""),
        (
            Form(raw=True, details=True),
            (
                f"com.docker.swarm.node.id={'n' * 25},com.docker.swarm.service.id={'s' * 25},"
                f"com.docker.swarm.task.id={'t' * 25} "
            ),
        ),
    ],
    ids=["plain", "no-task-ids", "no-trunc", "no-resolve", "raw", "details"],
)
def test_prefixes(form: Form, expected: str) -> None:
    assert form.prefix(MESSAGE) == expected


def test_a_timestamp_comes_first() -> None:
    assert Form(timestamps=True, raw=True).prefix(MESSAGE).startswith("1970-01-01T00:00:01")

"""What the log says of the connection to the managers."""

from __future__ import annotations

import pytest

from pyswarm_worker.session_log import SessionLog


def test_a_change_of_leader_and_a_long_absence(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    log = SessionLog(now=0.0)
    log.broken("m1: cannot connect: connection refused", 0.5)  # it is starting
    log.started("m1")
    log.broken("m1: the manager ended the session", 100.0)
    log.broken("m2: no leader is known yet", 101.0)
    log.started("m2")
    log.broken("m2: cannot connect: no route to host", 200.0)
    for second in range(201, 210):
        log.broken("m1: cannot connect: connection refused", float(second))
    log.broken("m2: no answer within 5 s", 210.0)
    assert [record.message for record in caplog.records] == [
        "session with the leader at m1 has started",
        "the session has ended: m1: the manager ended the session",
        "session with the leader at m2 has started",
        "the session has ended: m2: cannot connect: no route to host",
        "no session with a manager: m1: cannot connect: connection refused",
        "no session with a manager: m2: no answer within 5 s",
    ]

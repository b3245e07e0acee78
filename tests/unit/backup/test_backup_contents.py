"""What is captured comes back, to the last object, however many there are."""

from __future__ import annotations

import pytest
from backup_state import CLUSTER, tables

from pyswarm_common.backup.container import Damaged
from pyswarm_manager.backup.contents import PIECE_OBJECTS, capture, pieces, summary, tables_of
from pyswarm_manager.store.digest import digest
from pyswarm_manager.store.tables import Kind, Tables


@pytest.mark.parametrize("tasks", [0, 1, PIECE_OBJECTS - 1, PIECE_OBJECTS, 3 * PIECE_OBJECTS + 1])
def test_every_object_and_audit_record_comes_back(tasks: int) -> None:
    state = tables(tasks, records=2_500)
    captured = capture(state, CLUSTER, index=80, term=3)
    encoded = list(pieces(captured))
    assert encoded[-1][1] == len(captured.objects) == sum(len(state.table(kind)) for kind in Kind)
    again = tables_of(piece for piece, _ in encoded)
    assert again.index == captured.index
    again.index = state.index
    assert digest(again) == digest(state)


def test_what_changes_after_the_capture_is_not_in_it() -> None:
    state = tables()
    captured = capture(state, CLUSTER, index=77, term=3)
    before = digest(state)
    state.remove(Kind.TASK, "task1")
    state.audit.clear()
    assert digest(tables_of(piece for piece, _ in pieces(captured))) == before


def test_the_summary_names_managers_and_services() -> None:
    told = summary(capture(tables(), CLUSTER, 77, 3))
    assert [(m.hostname, m.address, m.raft_id) for m in told.managers] == [
        (f"n{n}", f"192.0.2.{n}:2377", n) for n in (1, 2, 3)
    ]
    assert told.services == ("web",)


def test_pieces_that_hold_no_swarm_or_nothing_that_can_be_read_are_refused() -> None:
    for parts in ([], [b"rubbish"], [b""], [piece for piece, _ in pieces(capture(Tables(), CLUSTER, 1, 1))]):
        with pytest.raises(Damaged):
            tables_of(parts)

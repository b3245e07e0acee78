"""With order stop-first nothing starts in a slot while what was there stops, whatever becomes of its successor."""

from __future__ import annotations

from planner_script import PlannerScript

from pyswarm_manager.store.changes import delete


def test_a_slot_that_lost_its_prepared_successor_waits_for_what_still_stops() -> None:
    script = PlannerScript()
    for line in ("node n1", "service web replicas=1 image=app:1", "settle", "set web image=app:2", "plan"):
        script.run(line)
    for _ in range(3):
        script.run("agents")
    assert script.run("plan") == ["web.1 t1 should be SHUTDOWN"]
    script.world.apply(delete(script.world.tables.tasks["t2"]))  # with its node, for example
    assert script.run("plan")[-1:] == ["create web.1 t3 on n1 ASSIGNED wanted READY app:2"]
    for _ in range(3):
        script.run("agents")
    assert script.run("plan") == ["web.1 t3 should be RUNNING"]

"""Who may connect to a service's tasks is no matter of the tasks: a change of it replaces none."""

from __future__ import annotations

from msgspec.structs import replace
from planner_world import World

from pyswarm_common.model import EndpointSpec


def test_a_change_of_policy_replaces_no_task() -> None:
    world = World()
    for name in ("n1", "n2"):
        world.node(name)
    world.service("web", replicas=3)
    world.settle()
    before = {task.id for task in world.running("web")}
    spec = world.tables.services["web"].spec
    for sources in (("api",), ("api", "ingress"), ("none",), ()):
        world.respec("web", endpoint=replace(spec.endpoint, allow_from=sources))
        world.settle()
        assert {task.id for task in world.running("web")} == before
    assert world.tables.services["web"].spec.endpoint == EndpointSpec()

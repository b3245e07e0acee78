"""Networks of other drivers than overlay: who gives out their addresses, and where their tasks may run."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from planner_world import World

from pyswarm_common.model import Network, NetworkSpec, Plugin
from pyswarm_manager.store.changes import Create, Update
from pyswarm_manager.store.network_claims import is_allocated


def network(world: World, name: str, driver: str, **spec: Any) -> None:
    world.apply(Create(Network(id=name, spec=NetworkSpec(name=name, driver=driver, **spec))))


def attached(world: World, service: str) -> list[tuple[str, ...]]:
    return [attachment.addresses for task in world.tasks(service) for attachment in task.networks]


def test_a_macvlan_of_the_swarm_has_addresses_and_a_virtual_one_but_no_identifier() -> None:
    world = World()
    world.node("n1")
    network(world, "lan", "macvlan", subnets=("192.0.2.0/24",), gateways=("192.0.2.254",))
    world.service("web", replicas=2, networks=["lan"])
    world.settle()
    made = world.tables.networks["lan"]
    assert (made.vni, made.subnets, made.gateways) == (0, ("192.0.2.0/24",), ("192.0.2.254",))
    assert is_allocated(made)
    found = {address for addresses in attached(world, "web") for address in addresses}
    found |= {vip.address for vip in world.tables.services["web"].endpoint.vips}
    assert len({address.partition("/")[0] for address in found} - {"192.0.2.254"}) == 3
    assert all(address.startswith("192.0.2.") for address in found)
    assert len(world.running("web")) == 2
    assert world.plan_again().changes == ()


@pytest.mark.parametrize(
    "spec", [{"driver": "bridge"}, {"driver": "macvlan", "config_from": "cfg"}], ids=["own", "lent"]
)
def test_where_the_nodes_give_the_addresses_tasks_run_without_any(spec: dict[str, str]) -> None:
    world = World()
    world.node("n1")
    network(world, "net", **spec)
    world.service("web", replicas=1, networks=["net"])
    world.settle()
    assert attached(world, "web") == [()]
    assert len(world.running("web")) == 1
    assert world.tables.services["web"].endpoint.vips == ()
    assert world.plan_again().changes == ()


def test_a_task_goes_where_the_plugin_is() -> None:
    world = World()
    for name, drivers in (("n1", ("overlay",)), ("n2", ("overlay", "acme")), ("n3", ("overlay",))):
        node = world.node(name)
        plugins = tuple(Plugin("Network", driver) for driver in drivers)
        described = msgspec.structs.replace(node.description, plugins=plugins)
        world.apply(Update(msgspec.structs.replace(node, description=described)))
    network(world, "plug", "acme", subnets=("10.50.0.0/24",))
    world.service("web", replicas=3, networks=["plug"])
    world.settle()
    assert {task.node_id for task in world.running("web")} == {"n2"}

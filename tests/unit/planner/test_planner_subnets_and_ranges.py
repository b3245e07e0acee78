"""Ranges of any size without walking over them, pools of both families, and subnets beside the nodes' routes."""

from __future__ import annotations

import ipaddress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from planner_world import World

from pyswarm_common.errors import Exhausted, FailedPrecondition
from pyswarm_common.model import Cluster, ClusterSpec, Network, NetworkSpec, Node, NodeDescription, TaskState
from pyswarm_common.network_options import VXLAN_IDS
from pyswarm_manager.planner.allocate.addresses import Range, address_number
from pyswarm_manager.planner.allocate.subnets import (
    check_subnets,
    families_of,
    free_subnet,
    gateways_of,
    pools_of,
    ula_pool,
)
from pyswarm_manager.planner.dirty import everything
from pyswarm_manager.planner.plan import State, plan
from pyswarm_manager.store.changes import Update

# ---- ranges


def take_all(part: Range) -> list[str]:
    found = []
    while (number := part.take()) is not None:
        found.append(part.text(number))
    return found


def test_a_range_is_the_part_of_its_subnet_that_was_asked_for() -> None:
    part = Range("10.0.0.0/24", ["10.0.0.1", "10.0.0.130"], pool="10.0.0.128/29")
    assert take_all(part) == [f"10.0.0.{last}" for last in (128, 129, 131, 132, 133, 134, 135)]
    part.hold(address_number("10.0.0.9"))  # a static one may be anywhere in the subnet
    assert part.contains(address_number("10.0.0.9"))
    assert part.free == 0


def test_what_was_released_longest_ago_comes_first_and_only_when_nothing_is_fresh() -> None:
    part = Range("10.0.0.0/29", ["10.0.0.1"])
    first = [part.take() for _ in range(4)]
    part.release(first[2])
    part.release(first[0])
    assert [part.text(number) for number in (part.take(), part.take(), part.take())] == [
        "10.0.0.6",
        part.text(first[2]),
        part.text(first[0]),
    ]
    assert part.take() is None


@pytest.mark.parametrize("subnet", ["10.0.0.0/8", "fd00::/64", "fd00::/16"])
def test_a_range_of_any_size_costs_what_is_held_of_it(subnet: str) -> None:
    part = Range(subnet)
    held = [part.take() for _ in range(1000)]
    assert held == list(range(part.first, part.first + 1000))
    assert part.free == part.last - part.first + 1 - 1000


def test_a_full_range_finds_what_is_released_at_once() -> None:
    """With 65,533 holders the next address is one step away, not as many."""
    part = Range("10.0.0.0/16", ["10.0.0.1"])
    held = list(iter(part.take, None))
    assert len(held) == 65_533
    rng = Random(1)
    looked = 0

    class Counting(dict):  # type: ignore[type-arg]
        def __contains__(self, key: object) -> bool:
            nonlocal looked
            looked += 1
            return super().__contains__(key)

    part.used = Counting(part.used)
    for _ in range(1_000):
        number = rng.choice(held)
        part.release(number)
        assert part.take() == number
    assert looked < 10_000


@given(st.lists(st.tuples(st.sampled_from("tTrhbu"), st.integers(0, 30)), max_size=80))
@settings(max_examples=200, deadline=None)
def test_a_range_is_what_its_holders_say(operations: list[tuple[str, int]]) -> None:
    """Against a model of plain sets: what is taken was free, and the number of free ones is right."""
    part = Range("10.0.0.0/27", ["10.0.0.1"], pool="10.0.0.8/29")
    base = address_number("10.0.0.0")
    used: dict[int, int] = {}
    blocked = {base + 1: 1}
    pool = set(range(base + 8, base + 16))
    for what, offset in operations:
        number = base + 1 + offset % 30
        if what in "tT":
            position = part.position()
            taken = part.take()
            free = pool - set(used) - set(blocked)
            assert (taken in free) if free else taken is None
            if taken is not None and what == "T":  # a plan that is undone
                part.release(taken)
                part.go_back(position)
            elif taken is not None:
                used[taken] = 1
        elif what == "h":
            part.hold(number)
            used[number] = used.get(number, 0) + 1
        elif what == "r" and number in used:
            part.release(number)
            used[number] -= 1
            used = {key: count for key, count in used.items() if count}
        elif what == "b":
            part.block(number)
            blocked[number] = blocked.get(number, 0) + 1
        elif what == "u" and blocked.get(number, 0) > (number == base + 1):
            part.unblock(number)
            blocked[number] -= 1
            blocked = {key: count for key, count in blocked.items() if count}
        assert part.free == len(pool - set(used) - set(blocked))
        assert (part.used, part.blocked) == (used, blocked)


def test_a_plan_that_is_not_committed_changes_nothing() -> None:
    world = World()
    world.node("n1")
    world.network("net", subnets=("10.1.0.0/28", "fd00::/64"))
    world.service("web", 3, networks=["net"])
    world.settle()
    world.report(world.running("web")[0], TaskState.FAILED)
    state = State(world.tables, world.ledger)
    plans = [plan(state, everything(), world.now + 60, lambda: 0.5, lambda: "id") for _ in range(2)]
    assert plans[0].changes
    assert plans[0].changes == plans[1].changes


# ---- pools


def test_the_families_of_a_network() -> None:
    assert families_of(NetworkSpec()) == (4,)
    assert families_of(NetworkSpec(ipv6=True)) == (4, 6)
    assert families_of(NetworkSpec(subnets=("fd00::/64",))) == (6,)
    assert families_of(NetworkSpec(subnets=("fd00::/64",), ipv6=True)) == (4, 6)
    assert families_of(NetworkSpec(subnets=("10.1.0.0/24", "fd00::/64"))) == (4, 6)


def test_each_cluster_has_local_ipv6_addresses_of_its_own() -> None:
    pool = ipaddress.IPv6Network(ula_pool("one"))
    assert pool.prefixlen == 48
    assert pool.subnet_of(ipaddress.IPv6Network("fd00::/8"))
    assert ula_pool("one") != ula_pool("two")
    assert pools_of(ClusterSpec(), "one", 6) == (str(pool),)
    assert pools_of(ClusterSpec(default_address_pools=("10.0.0.0/8", "fd12::/40")), "one", 6) == ("fd12::/40",)
    assert free_subnet(ClusterSpec(), [], version=6, cluster_id="one") == f"{pool.network_address}/64"


def test_networks_of_both_families_from_the_pools() -> None:
    world = World()
    world.network("dual", ipv6=True)
    world.network("half", ipv6=True, subnets=("10.1.0.0/24",))
    world.plan_all()
    pool = ula_pool("cluster").removesuffix("::/48")
    assert world.tables.networks["dual"].subnets == ("10.0.0.0/24", f"{pool}::/64")
    assert world.tables.networks["dual"].gateways == ("10.0.0.1", f"{pool}::1")
    assert world.tables.networks["half"].subnets == ("10.1.0.0/24", f"{pool}:1::/64")


def test_other_pools_are_for_new_networks() -> None:
    world = World()
    world.network("old")
    world.plan_all()
    cluster = world.tables.cluster
    assert isinstance(cluster, Cluster)
    spec = replace(cluster.spec, default_address_pools=("10.200.0.0/16",), subnet_size=26)
    world.apply(Update(replace(cluster, spec=spec)))
    world.network("new")
    world.plan_all()
    assert [world.tables.networks[name].subnets for name in ("old", "new")] == [("10.0.0.0/24",), ("10.200.0.0/26",)]


def test_gateways_are_the_first_address_without_a_name() -> None:
    spec = NetworkSpec(gateways=("10.2.0.9",), auxiliary_addresses={"a": "10.1.0.1", "b": "10.1.0.2"})
    assert gateways_of(spec, ("10.1.0.0/24", "10.2.0.0/24", "fd00::/64")) == ("10.1.0.3", "10.2.0.9", "fd00::1")


def test_addresses_come_from_the_first_subnet_with_room() -> None:
    world = World()
    world.node("n1")
    world.network("net", subnets=("10.1.0.0/30", "10.2.0.0/29", "fd00::/64"))
    world.service("web", 2, networks=["net"])
    world.settle()
    assert [vip.address for vip in world.tables.services["web"].endpoint.vips] == ["10.1.0.2", "fd00::2"]
    assert [task.networks[0].addresses for task in world.running("web")] == [
        ("10.2.0.2/29", "fd00::3/64"),
        ("10.2.0.3/29", "fd00::4/64"),
    ]


def test_a_task_gets_no_half_of_its_addresses() -> None:
    world = World()
    world.node("n1")
    world.network("net", subnets=("10.1.0.0/29", "fd00::/126"))
    world.service("web", 3, networks=["net"])
    world.settle()
    assert len(world.running("web")) == 1  # the service itself has the other one of IPv6
    (message,) = {task.status.message for task in world.tasks("web") if task.status.state is TaskState.NEW}
    assert message == "no free address left in network net (10.1.0.0/29, fd00::/126)"
    assert len(world.ledger.books["net"].ranges[0].used) == 2


# ---- identifiers


def test_an_identifier_of_ones_own() -> None:
    world = World()
    world.network("mine", options={VXLAN_IDS: "4098"})
    for name in ("a", "b"):
        world.network(name)
    world.plan_all()
    assert {name: network.vni for name, network in world.tables.networks.items()} == {
        "mine": 4098,
        "a": 4097,
        "b": 4099,
    }


# ---- the nodes' routes


def routing(name: str, *routes: str) -> Node:
    return Node(id=name, description=NodeDescription(hostname=name, routed_subnets=routes))


def test_chosen_subnets_are_clear_of_routes_and_of_the_ways_out() -> None:
    cluster = ClusterSpec(default_address_pools=("10.0.0.0/22", "172.18.0.0/15"))
    routes = ["10.0.0.0/23", "10.0.3.128/25", "fd00::/8"]
    used: list[Network] = []
    for expected in ("10.0.2.0/24", "172.19.0.0/24"):
        assert free_subnet(cluster, used, routes) == expected
        used.append(Network(id=expected, subnets=(expected,)))


def test_a_pool_that_a_route_covers_is_the_last_resort() -> None:
    cluster = ClusterSpec(default_address_pools=("10.0.0.0/8", "192.168.0.0/24"))
    first = free_subnet(cluster, [], ["10.0.0.0/8"])
    assert first == "192.168.0.0/24"
    used = [Network(id="a", subnets=(first,))]
    assert free_subnet(cluster, used, ["10.0.0.0/8", "10.0.0.0/16"]) == "10.1.0.0/24"
    with pytest.raises(Exhausted, match="none that no node routes itself: give the network a subnet"):
        free_subnet(ClusterSpec(default_address_pools=("10.0.0.0/23",)), [], ["10.0.0.0/24", "10.0.1.0/24"])


def test_a_subnet_that_a_node_routes_is_refused_with_its_name() -> None:
    nodes = [routing("n1", "192.168.0.0/16"), routing("n2", "10.1.0.0/16")]
    with pytest.raises(FailedPrecondition) as refused:
        check_subnets(NetworkSpec(subnets=("10.1.2.0/24",)), [], nodes)
    assert str(refused.value) == (
        "subnet 10.1.2.0/24 overlaps 10.1.0.0/16, which node n2 routes itself: choose another subnet"
    )
    check_subnets(NetworkSpec(subnets=("10.2.0.0/24",)), [], nodes)


def test_the_ledger_knows_who_routes_what() -> None:
    world = World()
    node = world.node("n1")
    for routes, chosen in ((("10.0.0.0/16",), "10.1.0.0/24"), ((), "10.0.0.0/24")):
        node = world.tables.nodes["n1"]
        world.apply(Update(replace(node, description=replace(node.description, routed_subnets=routes))))
        world.network(chosen)
        world.plan_all()
        assert world.tables.networks[chosen].subnets == (chosen,)
    world.remove(world.tables.nodes["n1"])
    assert world.ledger.routes == {}

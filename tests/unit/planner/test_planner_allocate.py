"""Addresses, subnets and VNIs."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from planner_world import World

from pyswarm_common.errors import AlreadyExists, Exhausted, InvalidArgument
from pyswarm_common.model import (
    ClusterSpec,
    EndpointMode,
    EndpointSpec,
    Network,
    NetworkSpec,
    NodeState,
    PortConfig,
    TaskState,
)
from pyswarm_manager.planner.allocate.addresses import Range, address_number
from pyswarm_manager.planner.allocate.subnets import check_subnets, free_subnet, free_vni
from pyswarm_manager.store.changes import Update


def network(name: str, *subnets: str) -> Network:
    return Network(id=name, spec=NetworkSpec(name=name), subnets=subnets)


def taken(part: Range, count: int) -> list[str | None]:
    numbers = [part.take() for _ in range(count)]
    return [None if number is None else part.text(number) for number in numbers]


@pytest.mark.parametrize(
    ("subnet", "gateway", "expected"),
    [
        ("10.0.0.0/29", "10.0.0.1", ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", None]),
        ("10.0.0.0/30", "10.0.0.2", ["10.0.0.1", None]),
        ("10.0.0.0/31", "10.0.0.0", ["10.0.0.1", None]),
        ("fd00::/126", "fd00::1", ["fd00::2", "fd00::3", None]),
    ],
)
def test_a_range_gives_each_usable_address_once(subnet: str, gateway: str, expected: list[str | None]) -> None:
    assert taken(Range(subnet, [gateway]), len(expected)) == expected


def test_a_released_address_is_not_reused_at_once() -> None:
    part = Range("10.0.0.0/29", ["10.0.0.1"])
    assert taken(part, 2) == ["10.0.0.2", "10.0.0.3"]
    part.release(address_number("10.0.0.2"))
    assert taken(part, 5) == ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2", None]


@given(st.ip_addresses())
def test_address_numbers(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert address_number(f"{address}/24") == address_number(str(address)) == int(address)


def test_subnets_are_cut_from_the_pools_around_what_is_used() -> None:
    cluster = ClusterSpec(default_address_pools=("10.0.0.0/22", "10.8.0.0/24"), subnet_size=24)
    used = [network("a", "10.0.0.0/24"), network("b", "10.0.1.128/25"), network("v6", "fd00::/64")]
    for expected in ("10.0.2.0/24", "10.0.3.0/24", "10.8.0.0/24"):
        assert free_subnet(cluster, used) == expected
        used.append(network(expected, expected))
    with pytest.raises(Exhausted) as found:
        free_subnet(cluster, used)
    assert str(found.value) == (
        "no free /24 subnet left in the pools (10.0.0.0/22, 10.8.0.0/24): give the network a subnet"
    )


@given(st.lists(st.tuples(st.integers(0, 4095), st.integers(20, 28)), max_size=12), st.integers(21, 27))
@settings(max_examples=100, deadline=None)
def test_a_free_subnet_overlaps_nothing(blocks: list[tuple[int, int]], size: int) -> None:
    used = [str(ipaddress.ip_network((0x0A000000 + block * 16, length), strict=False)) for block, length in blocks]
    cluster = ClusterSpec(default_address_pools=("10.0.0.0/20",), subnet_size=size)
    free = [
        candidate
        for candidate in ipaddress.ip_network("10.0.0.0/20").subnets(new_prefix=size)
        if not any(candidate.overlaps(ipaddress.ip_network(other)) for other in used)
    ]
    if free:
        assert free_subnet(cluster, [network("n", *used)]) == str(free[0])
    else:
        with pytest.raises(Exhausted):
            free_subnet(cluster, [network("n", *used)])


def test_vnis() -> None:
    assert free_vni({}) == 4097
    assert free_vni({4097: "a", 4098: "b", 4100: "c"}) == 4099


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        (NetworkSpec(subnets=("10.1.0.0/33",)), InvalidArgument, "invalid subnet 10.1.0.0/33"),
        (NetworkSpec(subnets=("10.1.0.1/24",)), InvalidArgument, "has host bits set"),
        (NetworkSpec(subnets=("10.1.0.0/31",)), InvalidArgument, "too small, use /30 or larger"),
        (NetworkSpec(subnets=("10.1.0.0/24", "10.1.0.128/25")), InvalidArgument, "another subnet of the same network"),
        (NetworkSpec(subnets=("10.1.0.0/24",), gateways=("10.2.0.1",)), InvalidArgument, "in none of the network's"),
        (NetworkSpec(subnets=("10.1.0.0/24",), gateways=("x",)), InvalidArgument, "invalid gateway x"),
        (NetworkSpec(subnets=("10.9.0.0/16",)), AlreadyExists, "overlaps 10.9.3.0/24 of network other"),
        (NetworkSpec(subnets=("10.9.3.64/26",)), AlreadyExists, "choose another subnet"),
    ],
)
def test_bad_subnets_are_named(spec: NetworkSpec, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as found:
        check_subnets(spec, [network("other", "10.9.3.0/24")])
    assert words in str(found.value)


def test_good_subnets_pass() -> None:
    spec = NetworkSpec(subnets=("10.1.0.0/24", "fd00:1::/64"), gateways=("10.1.0.254", "fd00:1::1"))
    check_subnets(spec, [network("other", "10.9.3.0/24", "fd00::/64")])


def test_a_dual_stack_network_gives_one_address_of_each_family() -> None:
    world = World()
    world.node("n1")
    world.network("dual", subnets=("10.1.0.0/24", "fd00::/64"))
    world.service("web", 1, networks=["dual"])
    world.settle()
    (task,) = world.running("web")
    assert task.networks[0].addresses == ("10.1.0.3/24", "fd00::3/64")


def test_dnsrr_takes_no_virtual_ip() -> None:
    world = World()
    world.network("net")
    service = world.service("web", 1, networks=["net"], endpoint=EndpointSpec(mode=EndpointMode.DNSRR))
    world.plan_all()
    assert world.tables.services[service.id].endpoint.vips == ()


def test_a_chosen_port_stays_when_the_spec_changes() -> None:
    world = World()
    world.node("n1")
    world.service("a", 1, endpoint=EndpointSpec(ports=(PortConfig(target_port=80),)))
    world.service("b", 1, endpoint=EndpointSpec(ports=(PortConfig(target_port=80),)))
    world.plan_all()
    assert [world.tables.services[name].endpoint.ports[0].published_port for name in "ab"] == [30000, 30001]
    world.respec("b", replicas=2)
    world.plan_all()
    assert world.tables.services["b"].endpoint.ports[0].published_port == 30001


def test_a_task_that_waits_for_a_network_without_a_subnet_says_why() -> None:
    world = World()
    world.node("n1")
    pools = ClusterSpec(default_address_pools=("10.9.0.0/24",), subnet_size=24)
    world.apply(Update(replace(world.tables.cluster, spec=pools)))
    world.network("first")
    world.network("second")
    world.service("web", 1, networks=["second"])
    world.plan_all()
    (task,) = world.tables.tasks.values()
    reason = "network second is not allocated yet: no free /24 subnet left in the pools (10.9.0.0/24)"
    assert task.status.message.startswith(reason)
    assert not world.plan_again().changes
    world.apply(Update(replace(world.tables.cluster, spec=replace(pools, default_address_pools=("10.9.0.0/16",)))))
    world.settle()
    assert len(world.running("web")) == 1


def test_an_automatic_port_beside_ports_of_the_same_target_is_another_number() -> None:
    world = World()
    world.node("n1")
    named = tuple(PortConfig(target_port=80, published_port=port) for port in (8090, 8091))
    world.service("web", 1, endpoint=EndpointSpec(ports=(*named, PortConfig(target_port=80))))
    for _ in range(2):  # what the service holds by then are the first plan's ports
        world.plan_all()
        ports = [port.published_port for port in world.tables.services["web"].endpoint.ports]
        assert ports == [8090, 8091, 30000]
    world.respec(
        "web",
        endpoint=EndpointSpec(ports=(PortConfig(target_port=80), PortConfig(target_port=81, published_port=30000))),
    )
    world.plan_all()
    ports = [port.published_port for port in world.tables.services["web"].endpoint.ports]
    assert ports[1] == 30000
    assert ports[0] != 30000


def test_a_task_on_a_node_that_is_down_keeps_its_address() -> None:
    world = World()
    for name in ("n1", "n2"):
        world.node(name)
    world.network("net", subnets=("10.1.0.0/29",))
    world.service("web", 2, networks=["net"])
    world.settle()
    lost = next(task for task in world.running("web") if task.node_id == "n1")
    world.node_state("n1", NodeState.DOWN)
    world.settle()
    held = [task.networks[0].addresses[0] for task in world.tables.tasks.values()]
    assert len(held) == len(set(held)) == 3
    world.remove(world.tables.nodes["n1"])
    world.plan_all()
    assert world.tables.tasks[lost.id].status.state is TaskState.ORPHANED


def test_tasks_wait_for_a_network_that_fills_up_and_go_on() -> None:
    world = World()
    world.node("n1")
    world.network("tiny", subnets=("10.1.0.0/29",))
    world.service("a", 3, networks=["tiny"])
    world.settle()
    world.service("b", 2, networks=["tiny"])
    world.settle()
    assert [task.status.state for task in world.tasks("b")] == [TaskState.NEW, TaskState.NEW]
    assert "no free address left in network tiny" in world.tasks("b")[0].status.message
    world.respec("a", replicas=1)
    world.settle()
    assert len(world.running("b")) == 2


def test_the_network_of_the_host_takes_nothing() -> None:
    world = World()
    world.node("n1")
    world.network("ingress", ingress=True)
    world.service("web", 2, networks=["host"])
    world.settle()
    assert world.tables.services["web"].endpoint.vips == ()
    assert [task.networks for task in world.running("web")] == [(), ()]
    assert world.plan_again().changes == ()

"""Addresses through the control API: what is refused and in which words, what is shown, and what races end in."""

from __future__ import annotations

import asyncio

import pytest
from manager_harness import Swarm, asked, new_id, service_spec, wire, worker_node
from msgspec.structs import replace

from pyswarm.v1 import control_pb2 as pb
from pyswarm.v1 import watch_pb2
from pyswarm_common import errors
from pyswarm_common.model import (
    Endpoint,
    EndpointMode,
    EndpointSpec,
    Network,
    NetworkAttachment,
    NetworkAttachmentSpec,
    NetworkSpec,
    Node,
    Service,
    ServiceMode,
    ServiceSpec,
    Task,
    TaskState,
    TaskStatus,
    VirtualIP,
)
from pyswarm_manager.api.network_usage import network_warnings, node_warnings, usage_of
from pyswarm_manager.api.validate import check_cluster_spec, check_network_spec, check_service_spec, refuse
from pyswarm_manager.api.watch import messages
from pyswarm_manager.planner.allocate.subnets import ula_pool
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.tables import Tables

TWO = {"subnets": ("10.1.0.0/24", "fd00:1::/64")}


def on(network: str, *addresses: str, vips: tuple[str, ...] = (), **changes: object) -> ServiceSpec:
    """A service on the network with these static addresses."""
    spec = service_spec(**changes)
    attachment = NetworkAttachmentSpec(target=network, addresses=addresses, virtual_addresses=vips)
    return replace(spec, task=replace(spec.task, networks=(attachment,)))


# ---- networks by themselves


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({**TWO, "ip_ranges": ("10.1.0.0/16",)}, "CIDR block is bigger than its parent subnet 10.1.0.0/24"),
        ({**TWO, "ip_ranges": ("10.2.0.0/25",)}, "no matching subnet for range 10.2.0.0/25"),
        ({**TWO, "ip_ranges": ("10.1.0.1/25",)}, "invalid ip-range 10.1.0.1/25: it should be 10.1.0.0/25"),
        ({**TWO, "ip_ranges": ("x",)}, "invalid ip-range 'x'"),
        ({**TWO, "ip_ranges": ("10.1.0.0/26", "10.1.0.64/26")}, "cannot configure multiple ranges"),
        ({**TWO, "gateways": ("10.1.0.1", "10.1.0.2")}, "cannot configure multiple gateways (10.1.0.2, 10.1.0.1)"),
        ({**TWO, "gateways": ("10.1.0.0",)}, "no matching subnet for gateway 10.1.0.0"),
        ({**TWO, "gateways": ("x",)}, "invalid gateway 'x'"),
        ({**TWO, "gateways": ("10.1.0.1", "fd00:1::1", "10.1.0.2")}, "must have a corresponding subnet"),
        ({**TWO, "auxiliary_addresses": {"a": "10.2.0.1"}}, "no matching subnet for aux-address 10.2.0.1"),
        ({**TWO, "auxiliary_addresses": {"a": "x"}}, "invalid auxiliary address 'a': 'x' is no address"),
        ({**TWO, "auxiliary_addresses": {"": "10.1.0.5"}}, "needs a name"),
        ({**TWO, "auxiliary_addresses": {"a": "10.1.0.5", "b": "10.1.0.5"}}, "10.1.0.5 is that of 'a' too"),
        (
            {**TWO, "gateways": ("10.1.0.9",), "auxiliary_addresses": {"a": "10.1.0.9"}},
            "invalid auxiliary address 'a': 10.1.0.9 is the gateway",
        ),
        ({"subnets": ("fd00:1::/64", "fd00:1::/80")}, "subnets fd00:1::/64 and fd00:1::/80 of the network overlap"),
    ],
)
def test_addressing_that_is_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(errors.InvalidArgument) as refused:
        refuse(check_network_spec(NetworkSpec(name="a", **changes)))  # type: ignore[arg-type]
    assert sentence in str(refused.value)


def test_good_addressing() -> None:
    refuse(
        check_network_spec(
            NetworkSpec(
                name="a",
                ipv6=True,
                subnets=("10.1.0.0/24", "fd00:1::/64", "10.2.0.0/24"),
                gateways=("fd00:1::ff", "10.2.0.254"),
                ip_ranges=("10.2.0.0/25",),
                auxiliary_addresses={"router": "10.1.0.5", "six": "fd00:1::5"},
            )
        )
    )


@pytest.mark.parametrize(
    ("pools", "sentence"),
    [
        (("fd00::/48",), "one of the default address pools must be of IPv4"),
        (("10.0.0.0/8", "10.1.0.0/16"), "default address pools 10.0.0.0/8 and 10.1.0.0/16 overlap"),
        (("10.0.0.0/8", "fd00::/80"), "pool fd00::/80 is smaller than a subnet of size 64"),
    ],
)
def test_pools_that_are_refused(swarm: Swarm, pools: tuple[str, ...], sentence: str) -> None:
    cluster = swarm.leader.store.view.cluster
    assert cluster is not None
    with pytest.raises(errors.InvalidArgument, match=sentence):
        refuse(check_cluster_spec(replace(cluster.spec, default_address_pools=pools)))


async def test_pools_are_changed_later(swarm: Swarm) -> None:
    control = swarm.control()
    cluster = (await asked(control.GetCluster(pb.GetClusterRequest()))).cluster
    cluster.spec.default_address_pools[:] = ["10.200.0.0/16", ula_pool("x")]
    cluster.spec.subnet_size = 26
    request = pb.UpdateClusterRequest(version=cluster.meta.version, spec=cluster.spec)
    changed = (await asked(control.UpdateCluster(request))).cluster
    assert list(changed.spec.default_address_pools) == ["10.200.0.0/16", ula_pool("x")]


# ---- static addresses


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (on("net", "x"), "invalid address 'x'"),
        (on("net", "10.1.0.9-10.1.0.3"), "invalid range of addresses"),
        (on("net", "10.1.0.0-10.1.255.255"), "at most 10000 static addresses"),
        (on("net", "10.1.0.5", "10.1.0.3-10.1.0.9"), "address 10.1.0.5 is given twice"),
        (on("net", "10.1.0.5", vips=("10.1.0.5",)), "address 10.1.0.5 is given twice"),
        (on("net", vips=("10.1.0.5", "10.1.0.6")), "one virtual address of each family"),
        (on("net", "10.1.0.5", mode=ServiceMode.GLOBAL, replicas=None), "tasks of a global one have no number"),
        (on("host", "10.1.0.5"), "the host network, which has the host's own"),
        (on("net", vips=("10.1.0.5",), endpoint=EndpointSpec(mode=EndpointMode.DNSRR)), "endpoint mode dnsrr"),
    ],
)
def test_static_addresses_that_make_no_sense(spec: ServiceSpec, sentence: str) -> None:
    with pytest.raises(errors.InvalidArgument) as refused:
        refuse(check_service_spec(spec))
    assert sentence in str(refused.value)


@pytest.fixture
async def net(swarm: Swarm) -> Network:
    """With a service, a task of it, and a named address."""
    network = Network(
        id=new_id(),
        spec=NetworkSpec(name="net", auxiliary_addresses={"router": "10.1.0.9"}),
        vni=5000,
        subnets=("10.1.0.0/24",),
        gateways=("10.1.0.1",),
    )
    service = Service(
        id=new_id(),
        spec=on(network.id, "10.1.0.50-10.1.0.59", name="db"),
        endpoint=Endpoint(vips=(VirtualIP(network.id, "10.1.0.2"),)),
    )
    task = Task(
        id=new_id(),
        service_id=service.id,
        service_name="db",
        slot=1,
        status=TaskStatus(state=TaskState.RUNNING),
        networks=(NetworkAttachment(network.id, ("10.1.0.3/24",)),),
    )
    await swarm.create(network, service, task)
    return network


@pytest.mark.parametrize(
    ("addresses", "vips", "error", "sentence"),
    [
        (("10.9.0.5",), (), errors.InvalidArgument, "address 10.9.0.5 is no host's in network net (10.1.0.0/24)"),
        (("10.1.0.250-10.1.0.255",), (), errors.InvalidArgument, "address 10.1.0.255 is no host's"),
        ((), ("10.1.0.1",), errors.InvalidArgument, "address 10.1.0.1 of network net is its gateway"),
        (
            ("10.1.0.5-10.1.0.20",),
            (),
            errors.InvalidArgument,
            "10.1.0.9 of network net is its auxiliary",
        ),
        ((), ("10.1.0.2",), errors.AlreadyExists, "address 10.1.0.2 of network net is in use by service db"),
        (("10.1.0.55",), (), errors.AlreadyExists, "address 10.1.0.55 of network net is in use by service db"),
        (("10.1.0.3",), (), errors.AlreadyExists, "address 10.1.0.3 of network net is in use by task db.1"),
    ],
)
async def test_static_addresses_that_cannot_be_had(
    swarm: Swarm, net: Network, addresses: tuple[str, ...], vips: tuple[str, ...], error: type[Exception], sentence: str
) -> None:
    spec = on(net.id, *addresses, vips=vips)
    with pytest.raises(error) as refused:
        await asked(swarm.control().CreateService(pb.CreateServiceRequest(spec=wire(spec))))
    assert sentence in str(refused.value)


async def test_an_own_task_in_another_slot_is_in_the_way_too(swarm: Swarm, net: Network) -> None:
    control = swarm.control()
    service = (await asked(control.GetService(pb.GetServiceRequest(service="db")))).service

    async def update(*addresses: str) -> None:
        spec = wire(on(net.id, *addresses, name="db"))
        known = (await asked(control.GetService(pb.GetServiceRequest(service="db")))).service
        request = pb.UpdateServiceRequest(service_id=service.id, version=known.meta.version, spec=spec)
        await asked(control.UpdateService(request))

    with pytest.raises(errors.AlreadyExists, match=r"10\.1\.0\.3 of network net is in use by task db\.1"):
        await update("10.1.0.50", "10.1.0.3")
    await update("10.1.0.3", "10.1.0.50")


async def test_of_two_at_the_same_time_one_is_refused(swarm: Swarm, net: Network) -> None:
    control = swarm.control()
    requests = [
        pb.CreateServiceRequest(spec=wire(on(net.id, vips=("10.1.0.100",), name=f"s{index}"))) for index in range(5)
    ]
    found = await asyncio.gather(*(asked(control.CreateService(item)) for item in requests), return_exceptions=True)
    assert sum(isinstance(item, errors.AlreadyExists) for item in found) == 4


async def test_a_network_and_a_service_on_it_at_the_same_time(swarm: Swarm) -> None:
    """Whoever is first is: never a service on a network that is gone."""
    control = swarm.control()
    for number in range(5):
        network = Network(id=new_id(), spec=NetworkSpec(name=f"n{number}"), vni=6000 + number)
        await swarm.create(network)
        spec = on(network.id, name=f"web{number}")
        created, removed = await asyncio.gather(
            asked(control.CreateService(pb.CreateServiceRequest(spec=wire(spec)))),
            asked(control.RemoveNetwork(pb.RemoveNetworkRequest(network=network.id))),
            return_exceptions=True,
        )
        assert isinstance(created, errors.NotFound) != isinstance(removed, errors.FailedPrecondition)
        is_there = network.id in swarm.leader.store.view.networks
        assert is_there == isinstance(removed, errors.FailedPrecondition)


# ---- what is shown


def routing(*routes: str) -> Node:
    node = worker_node("n" * 25, "worker1")
    return replace(node, description=replace(node.description, routed_subnets=routes))


async def test_inspect_tells_who_has_what_and_how_much_is_left(swarm: Swarm, net: Network) -> None:
    usage = (await asked(swarm.control().GetNetwork(pb.GetNetworkRequest(network="net")))).usage
    (subnet,) = usage.subnets
    assert (subnet.subnet, subnet.gateway, dict(subnet.auxiliary_addresses)) == (
        "10.1.0.0/24",
        "10.1.0.1",
        {"router": "10.1.0.9"},
    )
    assert (subnet.in_use, subnet.available) == (14, 254 - 14)  # gateway, router, ten kept, a virtual one and a task's
    assert [(member.name, list(member.addresses)) for member in usage.members] == [("db.1", ["10.1.0.3/24"])]
    assert [(service.name, list(service.virtual_addresses)) for service in usage.services] == [("db", ["10.1.0.2"])]
    assert not usage.warnings


async def test_routes_in_the_way_are_shown_on_both_sides(swarm: Swarm, net: Network) -> None:
    await swarm.create(routing("10.1.0.128/25", "192.168.0.0/16"))
    control = swarm.control()
    usage = (await asked(control.GetNetwork(pb.GetNetworkRequest(network="net")))).usage
    node = await asked(control.GetNode(pb.GetNodeRequest(node="worker1")))
    end = "containers of the network do not reach what is there"
    assert list(usage.warnings) == [
        f"subnet 10.1.0.0/24 overlaps 10.1.0.128/25, which node worker1 routes itself: {end}"
    ]
    assert list(node.warnings) == [f"its route 10.1.0.128/25 overlaps subnet 10.1.0.0/24 of network net: {end}"]
    request = pb.CreateNetworkRequest(spec=wire(NetworkSpec(name="b", subnets=("192.168.5.0/24",))))
    with pytest.raises(errors.FailedPrecondition, match=r"192\.168\.0\.0/16, which node worker1 routes itself"):
        await asked(control.CreateNetwork(request))


def test_an_event_of_a_node_carries_the_warning_when_its_routes_change() -> None:
    network = Network(id="net", spec=NetworkSpec(name="net"), vni=1, subnets=("10.1.0.0/24",))
    before, after = routing(), routing("10.1.0.0/16")
    again = replace(after, meta=replace(after.meta, version=9))

    def warning(old: Node, new: Node) -> str:
        (message,) = messages(5, iter([Event(old, new)]), 1.0, {"net": network}, for_admin=True)
        event: watch_pb2.WatchEvent = message.events[0]
        return event.attributes.get("warning", "")

    assert warning(before, after).startswith("its route 10.1.0.0/16 overlaps subnet 10.1.0.0/24 of network net")
    assert warning(after, again) == ""
    assert warning(after, before) == ""


def test_networks_of_other_drivers_mind_no_routes() -> None:
    network = Network(id="m", spec=NetworkSpec(name="m", driver="macvlan"), subnets=("10.1.0.0/24",))
    node = routing("10.1.0.0/16")
    assert network_warnings(network, [node]) == node_warnings(node, {"m": network}) == []


def test_usage_of_a_network_that_is_not_allocated_yet() -> None:
    usage = usage_of(Tables(), Network(id="n", spec=NetworkSpec(name="n")))
    assert not usage.subnets
    assert not usage.members
    assert "--default-addr-pool" in usage.warnings[0]

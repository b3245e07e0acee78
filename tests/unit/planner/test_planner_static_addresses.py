"""Addresses that a service has for good: who has them when, and what happens while two tasks want one."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from planner_world import World

from pyswarm_common.model import (
    EndpointMode,
    EndpointSpec,
    FailureAction,
    NetworkAttachmentSpec,
    NodeState,
    PlainAttachment,
    Task,
    TaskSpec,
    TaskState,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
)
from pyswarm_common.network_options import VXLAN_IDS
from pyswarm_manager.store.apply import Refusal
from pyswarm_manager.store.changes import Create, Delete, Update
from pyswarm_manager.store.static_addresses import Span, address_of_slot, count_of, spans
from pyswarm_manager.store.tables import Kind


def static(*addresses: str, vips: tuple[str, ...] = (), target: str = "net") -> TaskSpec:
    return TaskSpec(networks=(NetworkAttachmentSpec(target=target, addresses=addresses, virtual_addresses=vips),))


@pytest.fixture
def world() -> World:
    made = World()
    for name in ("n1", "n2"):
        made.node(name)
    made.network("net", subnets=("10.1.0.0/24",))
    made.plan_all()
    return made


def addresses(world: World, service: str) -> dict[int, tuple[str, ...]]:
    return {task.slot: task.networks[0].addresses for task in world.running(service)}


# ---- what entries mean


def test_slot_n_has_the_nth_of_each_family() -> None:
    attachment = NetworkAttachmentSpec(addresses=("10.0.1.10-10.0.1.12", "fd00::5", "10.0.1.30", "fd00::9-fd00::a"))
    numbers = [address_of_slot(attachment, 4, slot) for slot in range(1, 6)]
    assert numbers == [0x0A00010A, 0x0A00010B, 0x0A00010C, 0x0A00011E, None]
    assert (count_of(attachment, 4), count_of(attachment, 6)) == (4, 3)
    assert address_of_slot(attachment, 6, 3) == (0xFD00 << 112) + 0xA


@given(st.text(max_size=40))
def test_any_text_is_a_span_or_refused_with_a_sentence(text: str) -> None:
    with suppress(ValueError):
        (span,) = spans((text,))
        assert span.low <= span.high
        return
    with pytest.raises(ValueError, match="invalid "):
        spans((text,))


def test_spans_overlap() -> None:
    assert Span(4, 1, 5).overlap(Span(4, 3, 9)) == 3
    assert Span(4, 1, 5).overlap(Span(6, 3, 9)) is None
    assert Span(4, 1, 2).overlap(Span(4, 3, 9)) is None


# ---- who has them


def test_tasks_and_the_service_have_what_was_asked_for(world: World) -> None:
    world.service("web", 2, task=static("10.1.0.10-10.1.0.19", vips=("10.1.0.100",)))
    world.settle()
    assert addresses(world, "web") == {1: ("10.1.0.10/24",), 2: ("10.1.0.11/24",)}
    assert [vip.address for vip in world.tables.services["web"].endpoint.vips] == ["10.1.0.100"]
    assert world.plan_again().changes == ()


def test_nobody_else_is_given_them_while_nothing_runs(world: World) -> None:
    world.service("web", 0, task=static("10.1.0.2-10.1.0.9", vips=("10.1.0.10",)))
    world.service("other", 3, networks=["net"])
    world.settle()
    taken = {text for texts in addresses(world, "other").values() for text in texts}
    assert taken == {"10.1.0.12/24", "10.1.0.13/24", "10.1.0.14/24"}  # its virtual address is .11
    world.remove(world.tables.services["web"])
    world.respec("other", replicas=252)
    world.settle()
    assert len(world.running("other")) == 252  # .1 is the gateway's, .11 the service's


def test_more_replicas_than_addresses_wait_and_say_so(world: World) -> None:
    world.service("web", 3, task=static("10.1.0.10", "10.1.0.11"))
    world.settle()
    assert len(world.running("web")) == 2
    (waiting,) = [task for task in world.tasks("web") if task.status.state is TaskState.NEW]
    assert waiting.status.message == (
        "no address for replica 3 on network net: the service has 2 (--network name=net,ip=…)"
    )
    world.retask("web", networks=static("10.1.0.10-10.1.0.12").networks)
    world.settle()
    assert addresses(world, "web")[3] == ("10.1.0.12/24",)


def test_more_addresses_restart_nothing(world: World) -> None:
    world.service("web", 2, task=static("10.1.0.10-10.1.0.11"))
    world.settle()
    before = {task.id for task in world.running("web")}
    world.retask("web", networks=static("10.1.0.10-10.1.0.20", vips=("10.1.0.77",)).networks)
    world.settle()
    assert {task.id for task in world.running("web")} == before
    assert [vip.address for vip in world.tables.services["web"].endpoint.vips] == ["10.1.0.77"]


def test_other_addresses_replace_those_tasks_whose_address_is_another(world: World) -> None:
    world.service("web", 2, task=static("10.1.0.10", "10.1.0.11"))
    world.settle()
    before = {task.slot: task.id for task in world.running("web")}
    world.retask("web", networks=static("10.1.0.10", "10.1.0.20").networks)
    world.settle()
    assert addresses(world, "web") == {1: ("10.1.0.10/24",), 2: ("10.1.0.20/24",)}
    after = {task.slot: task.id for task in world.running("web")}
    assert after[1] == before[1]
    assert after[2] != before[2]


def test_an_ipv6_list_leaves_ipv4_to_the_planner(world: World) -> None:
    world.network("dual", subnets=("10.2.0.0/24", "fd00::/64"))
    world.plan_all()
    world.service("web", 1, task=static("fd00::10", target="dual"))
    world.settle()
    assert addresses(world, "web") == {1: ("10.2.0.3/24", "fd00::10/64")}


# ---- one address, two tasks


@pytest.mark.parametrize("order", list(UpdateOrder))
def test_an_update_stops_each_task_before_its_successor_has_its_address(world: World, order: UpdateOrder) -> None:
    world.service("web", 2, task=static("10.1.0.10-10.1.0.11"), update=UpdateConfig(parallelism=1, order=order))
    world.settle()
    before = {task.id for task in world.running("web")}
    world.retask("web", force_update=1)
    for _ in range(200):
        world.plan_all()
        if not world.agents_step():
            break
        held = [text for task in world.tables.tasks.values() if not task.status.state.is_terminal
                for item in task.networks for text in item.addresses]  # fmt: skip
        assert len(held) == len(set(held))
    world.settle(30.0)
    assert addresses(world, "web") == {1: ("10.1.0.10/24",), 2: ("10.1.0.11/24",)}
    assert not before & {task.id for task in world.running("web")}


def test_a_drained_task_takes_its_address_along(world: World) -> None:
    world.service("web", 1, task=static("10.1.0.10"))
    world.settle()
    (task,) = world.running("web")
    world.drain(task.node_id)
    world.settle(30.0)
    (moved,) = world.running("web")
    assert moved.node_id != task.node_id
    assert moved.networks[0].addresses == ("10.1.0.10/24",)


def test_a_task_on_a_lost_node_gives_its_address_to_its_successor(world: World) -> None:
    world.service("web", 1, task=static("10.1.0.10"))
    world.settle()
    (lost,) = world.running("web")
    world.node_state(lost.node_id, NodeState.DOWN)
    world.settle()
    (task,) = world.running("web")
    assert task.node_id != lost.node_id
    assert task.networks[0].addresses == ("10.1.0.10/24",)
    assert world.tables.tasks[lost.id].networks[0].addresses == ()
    world.node_state(lost.node_id, NodeState.READY)
    world.settle()
    assert addresses(world, "web") == {1: ("10.1.0.10/24",)}
    assert world.tables.tasks.get(lost.id) is None or world.tables.tasks[lost.id].status.state.is_terminal


def test_an_address_that_somebody_else_still_has_is_waited_for(world: World) -> None:
    world.service("other", 1, networks=["net"])
    world.settle()
    (holder,) = world.running("other")
    taken = holder.networks[0].addresses[0].partition("/")[0]
    world.service("web", 1, task=static(taken))
    world.settle()
    assert world.tasks("web")[0].status.message == f"waits for address {taken} of network net, which is in use"
    world.respec("other", replicas=0)
    world.settle()
    assert addresses(world, "web") == {1: (f"{taken}/24",)}


def test_a_rollback_to_an_address_that_is_another_services_now_pauses(world: World) -> None:
    config = UpdateConfig(parallelism=1, failure_action=FailureAction.ROLLBACK, monitor_s=30.0)
    world.service("web", 1, task=static("10.1.0.10"), update=config)
    world.settle(60.0)
    world.retask("web", networks=(NetworkAttachmentSpec(target="net"),), force_update=1)
    world.service("other", 1, task=static("10.1.0.10"))
    for _ in range(20):
        world.plan_all()
        fresh = [task for task in world.running("web") if task.spec.force_update == 1]
        if fresh:
            world.report(fresh[0], TaskState.FAILED)
            break
        world.agents_step()
    world.settle(5.0)
    status = world.tables.services["web"].update_status
    assert status is not None
    assert status.state is UpdateState.PAUSED
    assert "address 10.1.0.10 of network net is in use by service other" in status.message


# ---- refused by the store


def test_of_two_services_that_want_one_address_one_is_refused(world: World) -> None:
    world.service("web", 1, task=static("10.1.0.10-10.1.0.19"))
    spec = replace(world.tables.services["web"].spec, name="other", task=static("10.1.0.19", vips=("10.1.0.30",)))
    refused = world.try_apply(Create(replace(world.tables.services["web"], id="other", spec=spec)))
    assert isinstance(refused, Refusal)
    assert str(refused.error) == "address 10.1.0.19 of network net is in use by service web"


def test_a_removed_network_gives_no_addresses_any_more(world: World) -> None:
    """The plan was made before the network went."""
    world.service("web", 1, networks=["net"])
    plan = world.plan(commit=False)
    service = world.tables.services["web"]
    task = replace(service.spec.task, networks=())
    world.apply(Update(replace(service, spec=replace(service.spec, task=task))))
    network = world.tables.networks["net"]
    world.apply(Delete(Kind.NETWORK, "net", network.meta.version))
    creates = [change for change in plan.changes if isinstance(change, Create)]
    refused = world.try_apply(*creates)
    assert isinstance(refused, Refusal)
    assert str(refused.error) == "network net not found"


def test_a_network_and_a_service_on_it_cannot_pass_each_other(world: World) -> None:
    network = world.tables.networks["net"]
    service = world.service("web", 0, networks=["net"])
    refused = world.try_apply(Delete(Kind.NETWORK, "net", network.meta.version))
    assert isinstance(refused, Refusal)
    assert str(refused.error) == "network net is in use by service web"
    world.remove(service)
    world.plan_all()
    world.apply(Delete(Kind.NETWORK, "net", network.meta.version))
    refused = world.try_apply(Create(replace(service, id="late")))
    assert isinstance(refused, Refusal)
    assert str(refused.error) == "network net not found"


def test_two_networks_cannot_have_one_subnet_or_identifier(world: World) -> None:
    made = world.tables.networks["net"]
    for spec, words in (
        (replace(made.spec, name="b", subnets=("10.1.0.128/25",)), "subnet 10.1.0.128/25 overlaps 10.1.0.0/24"),
        (
            replace(made.spec, name="c", subnets=(), options={VXLAN_IDS: "4097"}),
            "VXLAN network identifier 4097 is in use by network net",
        ),
    ):
        refused = world.try_apply(Create(replace(made, id=spec.name, spec=spec, vni=0, subnets=(), gateways=())))
        assert isinstance(refused, Refusal)
        assert words in str(refused.error)


# ---- plain containers


def plain(name: str, node: str, *addresses: str) -> Task:
    spec = TaskSpec(
        networks=(NetworkAttachmentSpec(target="net", addresses=addresses),),
        attachment=PlainAttachment(container_id=name, container_name=name),
    )
    return Task(id=name, node_id=node, spec=spec, desired_state=TaskState.RUNNING)


def test_a_plain_container_gets_an_address_and_holds_the_network(world: World) -> None:
    world.apply(Create(plain("box", "n1")), Create(plain("fixed", "n1", "10.1.0.50")))
    world.plan_all()
    box, fixed = world.tables.tasks["box"], world.tables.tasks["fixed"]
    assert (box.status.state, fixed.status.state) == (TaskState.ASSIGNED, TaskState.ASSIGNED)
    assert box.networks[0].addresses == ("10.1.0.2/24",)
    assert fixed.networks[0].addresses == ("10.1.0.50/24",)
    network = world.tables.networks["net"]
    refused = world.try_apply(Delete(Kind.NETWORK, "net", network.meta.version))
    assert isinstance(refused, Refusal)
    assert str(refused.error) == "network net is in use by container box"
    assert world.plan_again().changes == ()


def test_the_place_of_a_plain_container_goes_with_it_or_with_its_node(world: World) -> None:
    world.apply(Create(plain("a", "n1")), Create(plain("b", "n2")))
    world.plan_all()
    world.report(world.tables.tasks["a"], TaskState.COMPLETE)
    world.plan_all()
    assert set(world.tables.tasks) == {"b"}
    world.remove(world.tables.nodes["n2"])
    world.plan_all()
    assert not world.tables.tasks
    assert world.ledger.books["net"].ranges[0].used == {}


def test_dnsrr_services_keep_their_slots_addresses(world: World) -> None:
    world.service("web", 1, task=static("10.1.0.10"), endpoint=EndpointSpec(mode=EndpointMode.DNSRR))
    world.settle()
    assert addresses(world, "web") == {1: ("10.1.0.10/24",)}
    assert world.tables.services["web"].endpoint.vips == ()

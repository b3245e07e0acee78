"""The control API against a real store: what users ask, and what they are refused."""

from __future__ import annotations

import asyncio

import pytest
from manager_harness import Swarm, asked, make_identity, new_id, service_spec, spec_of, wire, worker_node
from msgspec.structs import replace

from pyswarm.v1 import control_pb2 as pb
from pyswarm.v1 import types_pb2
from pyswarm_common import errors
from pyswarm_common.model import (
    EndpointSpec,
    Network,
    NetworkAttachment,
    NetworkAttachmentSpec,
    NetworkSpec,
    NodeRole,
    NodeState,
    NodeStatus,
    PortConfig,
    PublishMode,
    Service,
    ServiceMode,
    Task,
    TaskState,
    TaskStatus,
    UpdateState,
    UpdateStatus,
)
from pyswarm_manager.store.changes import SetNodeStatus, Update

# ---- services


async def test_a_service_is_created_found_updated_and_removed(swarm: Swarm) -> None:
    control = swarm.control()
    created = (await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(service_spec()))))).service
    assert len(created.id) == 25
    assert created.meta.version == created.spec_version > 0
    for reference in (created.id, "web", created.id[:6]):
        found = (await asked(control.GetService(pb.GetServiceRequest(service=reference)))).service
        assert found == created
    spec = spec_of(created)
    spec.replicas = 5
    request = pb.UpdateServiceRequest(service_id="web", version=created.meta.version, spec=spec)
    updated = (await asked(control.UpdateService(request))).service
    assert updated.spec.replicas == 5
    assert not updated.previous_spec.HasField("replicas")
    assert updated.spec_version == updated.meta.version > created.meta.version
    removed = await asked(control.RemoveService(pb.RemoveServiceRequest(service="web")))
    assert removed.service_id == created.id
    with pytest.raises(errors.NotFound, match="service web not found"):
        await asked(control.GetService(pb.GetServiceRequest(service="web")))


async def test_rollback_returns_to_the_previous_spec(swarm: Swarm) -> None:
    control = swarm.control()
    first = (await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(service_spec()))))).service
    with pytest.raises(errors.FailedPrecondition, match="service web does not have a previous spec"):
        await asked(
            control.UpdateService(pb.UpdateServiceRequest(service_id="web", version=first.meta.version, rollback=True))
        )
    spec = wire(service_spec(image="busybox:2"))
    request = pb.UpdateServiceRequest(service_id="web", version=first.meta.version, spec=spec)
    second = (await asked(control.UpdateService(request))).service
    request = pb.UpdateServiceRequest(service_id="web", version=second.meta.version, rollback=True)
    third = (await asked(control.UpdateService(request))).service
    assert third.spec.task.container.image == "busybox"
    assert third.previous_spec.task.container.image == "busybox:2"
    assert third.update_status.state == UpdateState.ROLLBACK_STARTED


async def test_an_update_from_an_old_version_is_refused(swarm: Swarm) -> None:
    control = swarm.control()
    first = (await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(service_spec()))))).service
    request = pb.UpdateServiceRequest(service_id="web", version=first.meta.version, spec=wire(service_spec(replicas=2)))
    await asked(control.UpdateService(request))
    with pytest.raises(errors.OutOfSequence, match="update out of sequence"):
        await asked(control.UpdateService(request))


async def test_what_the_planner_writes_refuses_no_update(swarm: Swarm) -> None:
    """Right after a create or an update the planner allocates and writes the update's status."""
    control, store = swarm.control(), swarm.leader.store
    first = (await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(service_spec()))))).service
    for replicas in (2, 3):
        service = store.view.services[first.id]
        status = UpdateStatus(state=UpdateState.UPDATING, message=f"before {replicas}")
        await store.propose([Update(replace(service, update_status=status))])
        moved = store.view.services[first.id]
        assert moved.meta.version > moved.spec_version
        request = pb.UpdateServiceRequest(
            service_id="web", version=moved.spec_version, spec=wire(service_spec(replicas=replicas))
        )
        assert (await asked(control.UpdateService(request))).service.spec.replicas == replicas
    request = pb.UpdateServiceRequest(service_id="web", version=1 << 40, spec=wire(service_spec()))
    with pytest.raises(errors.OutOfSequence):
        await asked(control.UpdateService(request))
    request = pb.UpdateServiceRequest(service_id="web", spec=wire(service_spec()))
    with pytest.raises(errors.InvalidArgument, match="does not say which version it read"):
        await asked(control.UpdateService(request))


async def test_one_of_two_updates_from_one_version_is_refused(swarm: Swarm) -> None:
    control = swarm.control()
    first = (await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(service_spec()))))).service
    updates = [
        control.UpdateService(
            pb.UpdateServiceRequest(service_id="web", version=first.meta.version, spec=wire(service_spec(replicas=n)))
        )
        for n in (2, 3)
    ]
    results = await asyncio.gather(*(asked(update) for update in updates), return_exceptions=True)
    assert sorted(isinstance(result, errors.OutOfSequence) for result in results) == [False, True]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (service_spec(name="other"), "renaming services is not supported"),
        (service_spec(mode=ServiceMode.GLOBAL), "service mode change is not allowed"),
        (service_spec(replicas=100_001), "replicas must be between 0 and 100000"),
    ],
)
async def test_what_an_update_may_not_change(swarm: Swarm, spec: object, message: str) -> None:
    control = swarm.control()
    first = (await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(service_spec()))))).service
    request = pb.UpdateServiceRequest(service_id="web", version=first.meta.version, spec=wire(spec))
    with pytest.raises(errors.InvalidArgument, match=message):
        await asked(control.UpdateService(request))


async def test_a_name_is_taken_once(swarm: Swarm) -> None:
    control = swarm.control()
    request = pb.CreateServiceRequest(spec=wire(service_spec()))
    await asked(control.CreateService(request))
    with pytest.raises(errors.AlreadyExists, match="service web already exists"):
        await asked(control.CreateService(request))


def published(port: int, mode: PublishMode = PublishMode.INGRESS) -> EndpointSpec:
    return EndpointSpec(ports=(PortConfig(target_port=80, published_port=port, publish_mode=mode),))


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (PublishMode.INGRESS, PublishMode.INGRESS, "an ingress"),
        (PublishMode.INGRESS, PublishMode.HOST, "an ingress"),
        (PublishMode.HOST, PublishMode.INGRESS, "a host-published"),
    ],
)
async def test_a_published_port_is_taken_once(swarm: Swarm, first: PublishMode, second: PublishMode, kind: str) -> None:
    control = swarm.control()
    spec = service_spec(endpoint=published(8080, first))
    await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(spec))))
    other = service_spec(name="other", endpoint=published(8080, second))
    with pytest.raises(
        errors.AlreadyExists, match=rf"port '8080' is already in use by service 'web' \(\w+\) as {kind}"
    ):
        await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(other))))


async def test_two_services_may_have_one_host_port(swarm: Swarm) -> None:
    control = swarm.control()
    for name in ("web", "other"):
        spec = service_spec(name=name, endpoint=published(8080, PublishMode.HOST))
        await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(spec))))


async def test_all_wrong_fields_are_named_at_once(swarm: Swarm) -> None:
    spec = service_spec(name="-bad", replicas=200_000, endpoint=published(70_000))
    with pytest.raises(errors.InvalidArgument) as caught:
        await asked(swarm.control().CreateService(pb.CreateServiceRequest(spec=wire(spec))))
    assert [path for path, _ in caught.value.violations] == ["name", "replicas", "endpoint.ports[0].published_port"]
    assert "name must be valid as a DNS name component" in str(caught.value)


async def test_networks_are_stored_by_id(swarm: Swarm) -> None:
    control = swarm.control()
    network = (await asked(control.CreateNetwork(pb.CreateNetworkRequest(spec=wire(NetworkSpec(name="web")))))).network
    assert network.spec.driver == "overlay"
    task = replace(service_spec().task, networks=(NetworkAttachmentSpec(target="web", aliases=("www",)),))
    request = pb.CreateServiceRequest(spec=wire(service_spec(task=task)))
    service = (await asked(control.CreateService(request))).service
    assert service.spec.task.networks[0].target == network.id
    assert list(service.spec.task.networks[0].aliases) == ["www"]
    with pytest.raises(errors.FailedPrecondition, match="network web is in use by service web"):
        await asked(control.RemoveNetwork(pb.RemoveNetworkRequest(network="web")))


async def test_a_service_may_use_the_network_of_its_hosts(swarm: Swarm) -> None:
    control = swarm.control()
    task = replace(service_spec().task, networks=(NetworkAttachmentSpec(target="host"),))
    request = pb.CreateServiceRequest(spec=wire(service_spec(task=task)))
    service = (await asked(control.CreateService(request))).service
    assert [network.target for network in service.spec.task.networks] == ["host"]
    for name in ("host", "bridge", "none"):
        with pytest.raises(errors.AlreadyExists, match=f"network with name {name} already exists"):
            await asked(control.CreateNetwork(pb.CreateNetworkRequest(spec=wire(NetworkSpec(name=name)))))


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (("nosuch",), errors.NotFound, "network nosuch not found"),
        (("ingress",), errors.InvalidArgument, "cannot be explicitly attached to the ingress network"),
        (("host", "ingress"), errors.InvalidArgument, "cannot be disconnected from host network or connected to host"),
        (("bridge",), errors.InvalidArgument, "network bridge cannot be used with services"),
    ],
)
async def test_networks_that_cannot_be_joined(
    swarm: Swarm, targets: tuple[str, ...], error: type[Exception], message: str
) -> None:
    task = replace(service_spec().task, networks=tuple(NetworkAttachmentSpec(target=target) for target in targets))
    with pytest.raises(error, match=message):
        await asked(swarm.control().CreateService(pb.CreateServiceRequest(spec=wire(service_spec(task=task)))))


async def test_list_with_filters_pages_and_counts(swarm: Swarm) -> None:
    control = swarm.control()
    for number in range(7):
        spec = service_spec(name=f"web{number}", labels={"odd": str(number % 2)}, replicas=number)
        await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(spec))))
    await asked(
        control.CreateService(pb.CreateServiceRequest(spec=wire(service_spec(name="all", mode=ServiceMode.GLOBAL))))
    )
    options = pb.ListOptions(page_size=3, names=["web"])
    seen: list[str] = []
    while True:
        page = await asked(control.ListServices(pb.ListServicesRequest(options=options, status=True)))
        assert len(page.services) <= 3
        assert all(page.statuses[s.id].desired == s.spec.replicas for s in page.services)
        seen += [service.spec.name for service in page.services]
        options.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert sorted(seen) == [f"web{number}" for number in range(7)]
    odd = await asked(control.ListServices(pb.ListServicesRequest(options=pb.ListOptions(labels=["odd=1"]))))
    assert len(odd.services) == 3
    every = await asked(control.ListServices(pb.ListServicesRequest(modes=[types_pb2.SERVICE_MODE_GLOBAL])))
    assert [service.spec.name for service in every.services] == ["all"]


# ---- tasks


async def test_tasks_by_service_node_and_state(swarm: Swarm) -> None:
    service = Service(id=new_id(), spec=service_spec())
    node = worker_node(new_id(), "worker1")
    wanted = Task(id=new_id(), service_id=service.id, service_name="web", slot=1, node_id=node.id,
                  desired_state=TaskState.RUNNING, status=TaskStatus(state=TaskState.RUNNING))  # fmt: skip
    ended = replace(wanted, id=new_id(), slot=2, node_id="", desired_state=TaskState.SHUTDOWN)
    await swarm.create(service, node, wanted, ended)
    control = swarm.control()

    async def ids(**filters: object) -> set[str]:
        answer = await asked(control.ListTasks(pb.ListTasksRequest(**filters)))
        return {task.id for task in answer.tasks}

    assert await ids() == {wanted.id, ended.id}
    assert await ids(service_ids=[service.id]) == {wanted.id, ended.id}
    assert await ids(node_ids=[node.id]) == {wanted.id}
    assert await ids(service_ids=[service.id], desired_states=[types_pb2.TASK_STATE_SHUTDOWN]) == {ended.id}
    found = await asked(control.GetTask(pb.GetTaskRequest(task="web.1")))
    assert found.task.id == wanted.id
    answer = await asked(control.ListServices(pb.ListServicesRequest(status=True)))
    assert answer.statuses[service.id].running == 1


# ---- networks


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (NetworkSpec(name="ingress"), errors.AlreadyExists, "network with name ingress already exists"),
        (NetworkSpec(name="host"), errors.AlreadyExists, "network with name host already exists"),
        (NetworkSpec(name="in2", ingress=True), errors.AlreadyExists, "is already present"),
        (NetworkSpec(name="m", driver="acme"), errors.NotFound, "could not find plugin acme"),
        (NetworkSpec(name="a", subnets=("10.9.0.0/24",)), errors.AlreadyExists, "overlaps"),
        (NetworkSpec(name="a", subnets=("nonsense",)), errors.InvalidArgument, "invalid subnet 'nonsense'"),
        (NetworkSpec(name="a", options={"x": "y"}), errors.InvalidArgument, "unknown network option 'x'"),
    ],
)
async def test_networks_that_are_refused(swarm: Swarm, spec: NetworkSpec, error: type[Exception], message: str) -> None:
    await swarm.create(Network(id=new_id(), spec=NetworkSpec(name="nine"), subnets=("10.9.0.0/16",)))
    with pytest.raises(error, match=message):
        await asked(swarm.control().CreateNetwork(pb.CreateNetworkRequest(spec=wire(spec))))


async def test_the_ingress_network_stays_while_a_service_publishes_ports(swarm: Swarm) -> None:
    control = swarm.control()
    service = Service(
        id=new_id(), spec=service_spec(endpoint=EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080),)))
    )
    await swarm.create(service)
    with pytest.raises(
        errors.FailedPrecondition, match="ingress network cannot be removed because service web depends"
    ):
        await asked(control.RemoveNetwork(pb.RemoveNetworkRequest(network="ingress")))
    await asked(control.RemoveService(pb.RemoveServiceRequest(service=service.id)))
    await asked(control.RemoveNetwork(pb.RemoveNetworkRequest(network="ingress")))
    spec = wire(NetworkSpec(name="ingress", ingress=True, ipv6=True))
    made = (await asked(control.CreateNetwork(pb.CreateNetworkRequest(spec=spec)))).network
    assert made.spec.ipv6


async def test_a_network_in_use_by_a_task_stays(swarm: Swarm) -> None:
    network = Network(id=new_id(), spec=NetworkSpec(name="web"))
    service = Service(id=new_id(), spec=service_spec())
    task = Task(id=new_id(), service_id=service.id, service_name="web", slot=1,
                networks=(NetworkAttachment(network_id=network.id),))  # fmt: skip
    await swarm.create(network, service, task)
    with pytest.raises(errors.FailedPrecondition, match=r"network web is in use by task web\.1"):
        await asked(swarm.control().RemoveNetwork(pb.RemoveNetworkRequest(network="web")))


# ---- nodes


async def test_labels_and_availability_of_a_node(swarm: Swarm) -> None:
    await swarm.create(worker_node("w" * 25, "worker1"))
    control = swarm.control()
    node = (await asked(control.GetNode(pb.GetNodeRequest(node="worker1")))).node
    node.spec.labels["disk"] = "ssd"
    node.spec.availability = types_pb2.AVAILABILITY_DRAIN
    request = pb.UpdateNodeRequest(node_id="worker1", version=node.meta.version, spec=node.spec)
    changed = (await asked(control.UpdateNode(request))).node
    assert changed.spec.labels["disk"] == "ssd"
    with pytest.raises(errors.OutOfSequence):
        await asked(control.UpdateNode(request))


async def test_what_the_dispatcher_writes_refuses_no_update_of_a_node(swarm: Swarm) -> None:
    await swarm.create(worker_node("w" * 25, "worker1"))
    control, store = swarm.control(), swarm.leader.store
    node = (await asked(control.GetNode(pb.GetNodeRequest(node="worker1")))).node
    await store.propose([SetNodeStatus(node.id, NodeStatus(state=NodeState.SUSPECT))])
    node.spec.labels["disk"] = "ssd"
    request = pb.UpdateNodeRequest(node_id="worker1", version=node.meta.version, spec=node.spec)
    changed = (await asked(control.UpdateNode(request))).node
    assert changed.spec.labels["disk"] == "ssd"
    assert changed.status.state == NodeState.SUSPECT


async def test_the_last_manager_stays(swarm: Swarm) -> None:
    control = swarm.control()
    node = (await asked(control.GetNode(pb.GetNodeRequest(node="manager1")))).node
    assert node.manager_status.leader
    assert node.manager_status.reachable
    node.spec.role = types_pb2.NODE_ROLE_WORKER
    request = pb.UpdateNodeRequest(node_id=node.id, version=node.meta.version, spec=node.spec)
    with pytest.raises(errors.FailedPrecondition, match="attempting to demote the last manager of the swarm"):
        await asked(control.UpdateNode(request))
    for force in (False, True):
        with pytest.raises(errors.FailedPrecondition):
            await asked(control.RemoveNode(pb.RemoveNodeRequest(node=node.id, force=force)))


async def test_a_node_is_removed_with_its_tasks_once_it_is_down(swarm: Swarm) -> None:
    up = worker_node("w" * 25, "worker1")
    down = worker_node("x" * 25, "worker2", status=NodeStatus(state=NodeState.DOWN))
    service = Service(id=new_id(), spec=service_spec())
    task = Task(id=new_id(), service_id=service.id, slot=1, node_id=down.id)
    await swarm.create(up, down, service, task)
    control = swarm.control()
    with pytest.raises(errors.FailedPrecondition, match=f"node {up.id} is not down and can't be removed"):
        await asked(control.RemoveNode(pb.RemoveNodeRequest(node="worker1")))
    await asked(control.RemoveNode(pb.RemoveNodeRequest(node="worker1", force=True)))
    await asked(control.RemoveNode(pb.RemoveNodeRequest(node="worker2")))
    view = swarm.leader.store.view
    assert set(view.nodes) == {swarm.leader.node_id}
    assert not view.tasks


async def test_a_demotion_that_would_lose_the_majority_is_refused(swarm3: Swarm) -> None:
    lost, kept = swarm3.followers
    await swarm3.kill(lost)
    leader = swarm3.leader
    await swarm3.wait(lambda: not leader.raft.members[lost.raft_id].is_active)
    control = swarm3.control(leader)
    node = (await asked(control.GetNode(pb.GetNodeRequest(node=kept.node_id)))).node
    node.spec.role = types_pb2.NODE_ROLE_WORKER
    request = pb.UpdateNodeRequest(node_id=node.id, version=node.meta.version, spec=node.spec)
    with pytest.raises(errors.FailedPrecondition, match="loss of quorum"):
        await asked(control.UpdateNode(request))
    nodes = (await asked(control.ListNodes(pb.ListNodesRequest()))).nodes
    assert {n.id: n.manager_status.reachable for n in nodes}[lost.node_id] is False


# ---- cluster


async def test_the_root_key_never_leaves(swarm: Swarm) -> None:
    control = swarm.control()
    cluster = (await asked(control.GetCluster(pb.GetClusterRequest()))).cluster
    assert cluster.root_ca_cert
    assert not cluster.root_ca_key
    request = pb.UpdateClusterRequest(version=cluster.meta.version, rotate_worker_token=True)
    rotated = (await asked(control.UpdateCluster(request))).cluster
    assert not rotated.root_ca_key
    assert rotated.join_tokens.worker != cluster.join_tokens.worker
    assert rotated.join_tokens.manager == cluster.join_tokens.manager
    assert swarm.leader.store.view.cluster.root_ca_key  # and it is still there
    spec = rotated.spec
    spec.data_path_port = 4790
    request = pb.UpdateClusterRequest(version=rotated.meta.version, spec=spec)
    with pytest.raises(errors.InvalidArgument, match="chosen at init"):
        await asked(control.UpdateCluster(request))


# ---- callers


async def test_a_removed_managers_certificate_opens_nothing(swarm: Swarm) -> None:
    stranger = make_identity(swarm.root, "z" * 25, NodeRole.MANAGER)
    control = swarm.control(identity=stranger)
    with pytest.raises(errors.Forbidden, match="not a manager of this swarm any more"):
        await asked(control.ListServices(pb.ListServicesRequest()))
    with pytest.raises(errors.Forbidden):
        await asked(control.RemoveService(pb.RemoveServiceRequest(service="web")))


async def test_a_worker_reads_nothing(swarm: Swarm) -> None:
    worker = make_identity(swarm.root, "w" * 25, NodeRole.WORKER)
    with pytest.raises(errors.Forbidden, match="a worker may not call"):
        await asked(swarm.control(identity=worker).GetCluster(pb.GetClusterRequest()))


# ---- followers, and no leader at all


async def test_a_follower_passes_writes_on_and_reads_them_back(swarm3: Swarm) -> None:
    follower, other = swarm3.followers
    control = swarm3.control(follower)
    created = (await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(service_spec()))))).service
    # Linearizable: seen on any manager at once, though it applied the write later.
    found = await asked(swarm3.control(other).GetService(pb.GetServiceRequest(service="web")))
    assert found.service == created
    with pytest.raises(errors.AlreadyExists):
        await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(service_spec()))))
    with pytest.raises(errors.InvalidArgument) as caught:
        await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(service_spec(name="-bad")))))
    assert caught.value.violations[0][0] == "name"
    nodes = (await asked(control.ListNodes(pb.ListNodesRequest()))).nodes
    assert [node.manager_status.leader for node in nodes].count(True) == 1
    assert all(node.manager_status.reachable for node in nodes)


async def test_without_a_leader_the_manager_says_what_it_waits_for(swarm3: Swarm) -> None:
    follower = swarm3.followers[0]
    for manager in [manager for manager in swarm3.managers if manager is not follower]:
        await swarm3.kill(manager)
    await swarm3.wait(lambda: follower.raft.leader_id is None)
    control = swarm3.control(follower)
    # The calls have no deadline of their own: the refusal is the manager's.
    with pytest.raises(errors.Unavailable, match="no leader"):
        await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(service_spec()))))
    with pytest.raises(errors.Unavailable, match="no leader"):
        await asked(control.ListServices(pb.ListServicesRequest()))
    local = pb.ListOptions(consistency=pb.CONSISTENCY_LOCAL)
    nodes = await asked(control.ListNodes(pb.ListNodesRequest(options=local)))
    assert len(nodes.nodes) == 3


async def test_writes_go_on_after_the_leader_is_killed(swarm3: Swarm) -> None:
    old = swarm3.leader
    follower = swarm3.followers[0]
    control = swarm3.control(follower)
    await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(service_spec(name="before")))))
    await swarm3.kill(old)
    while True:
        try:
            await asked(control.CreateService(pb.CreateServiceRequest(spec=wire(service_spec(name="after")))))
            break
        except (errors.Unavailable, errors.Unknown):
            await asyncio.sleep(0.02)
    names = (await asked(control.ListServices(pb.ListServicesRequest()))).services
    assert {service.spec.name for service in names} == {"before", "after"}


async def test_a_forwarded_request_is_not_forwarded_again(swarm3: Swarm) -> None:
    follower = swarm3.followers[0]
    control = swarm3.control(follower)
    metadata = (("pyswarm-forwarded-by", "x"), ("pyswarm-caller", "local"), ("pyswarm-caller-node", ""))
    request = pb.CreateServiceRequest(spec=wire(service_spec()))
    with pytest.raises(errors.Unavailable, match="no leader"):
        await asked(control.CreateService(request, metadata=metadata))
    assert not swarm3.leader.store.view.services


async def never(changes: object) -> int:
    return await asyncio.Event().wait()


@pytest.mark.parametrize("how", ["killed", "cut off"])
async def test_a_leader_lost_before_it_answers_leaves_the_caller_in_doubt(swarm3: Swarm, how: str) -> None:
    leader, (follower, other) = swarm3.leader, swarm3.followers
    control = swarm3.control(follower)
    await asked(control.ListNodes(pb.ListNodesRequest()))  # the channel to the leader stands
    leader.store.propose = never  # type: ignore[method-assign, assignment]
    write = asyncio.ensure_future(asked(control.CreateService(pb.CreateServiceRequest(spec=wire(service_spec())))))
    await asyncio.wait([write], timeout=0.1)
    assert not write.done()
    if how == "killed":
        await swarm3.kill(leader)
    else:
        swarm3.board.isolate(leader.raft_id, [follower.raft_id, other.raft_id])
    with pytest.raises(errors.Unknown, match="may or may not be made"):
        await write

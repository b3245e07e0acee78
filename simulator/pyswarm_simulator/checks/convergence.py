"""What the cluster must come to once everything is healed: one leader, equal stores, and on every host exactly what the
store says. Gives the first thing that is not so yet."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from msgspec.structs import replace

from pyswarm_common.model import (
    Availability,
    Node,
    NodeRole,
    NodeState,
    Service,
    ServiceMode,
    Task,
    TaskSpec,
    TaskState,
)
from pyswarm_manager.dispatcher.core.assignments import is_assigned, is_kept
from pyswarm_manager.raft.core.types import MemberRole, Role
from pyswarm_manager.store.static_addresses import address_of_slot
from pyswarm_manager.store.tables import Kind, Tables
from pyswarm_simulator.checks.jobs import what_a_job_misses
from pyswarm_simulator.checks.networks import what_hosts_miss
from pyswarm_simulator.checks.settled import Settled
from pyswarm_simulator.checks.stores import content_digest
from pyswarm_simulator.cluster import SimCluster
from pyswarm_simulator.host import Host
from pyswarm_simulator.manager import ManagerProcess
from pyswarm_simulator.orchestration_workload import PREFIX
from pyswarm_worker.core.materials import needed_ids
from pyswarm_worker.tasks import task_id_of


def what_is_missing(cluster: SimCluster) -> str:
    """Empty once everything is as it must be."""
    return next(_missing(cluster), "")


def _missing(cluster: SimCluster) -> Iterator[str]:
    leaders = [m for m in cluster.managers() if m.raft is not None and _leads(m)]
    if len(leaders) != 1:
        yield f"{len(leaders)} leaders"
        return
    leader = leaders[0]
    assert leader.raft is not None
    assert leader.store is not None
    yield from _members(cluster, leader)
    view = leader.store.view
    yield from _nodes(cluster, view)
    settled = Settled(view, cluster.world.now, cluster.demands)
    for service in view.services.values():
        yield from settled.missing(service) if service.spec.name.startswith(PREFIX) else _service(view, service)
    yield from cluster.following.what_lags(view)
    for host in cluster.hosts.values():
        if host.node_id in view.nodes:
            yield from _host(view, host)
        elif host.is_up and host.runtime.running():
            yield f"{host.name} is no node any more, and still runs {len(host.runtime.running())} containers"
    yield from what_hosts_miss(view, [host for host in cluster.hosts.values() if host.node_id in view.nodes])


def _leads(manager: ManagerProcess) -> bool:
    return manager.raft is not None and manager.raft._loop.core.state.role is Role.LEADER


def _members(cluster: SimCluster, leader: ManagerProcess) -> Iterator[str]:
    """Every manager that is to be one is a voter, and all have the same store."""
    assert leader.raft is not None
    assert leader.store is not None
    claimed = {n.manager_status.raft_id for n in leader.store.view.nodes.values() if n.manager_status is not None}
    members = leader.raft.members
    if claimed != set(members):
        yield f"members {sorted(members)} where the nodes claim {sorted(claimed)}"
    if any(member.role is not MemberRole.VOTER for member in members.values()):
        yield "a learner that does not become a voter"
    by_id = {manager.raft_id: manager for manager in cluster.managers()}
    expected = content_digest(leader.store.view)
    for raft_id in members:
        manager = by_id.get(raft_id)
        if manager is None or manager.store is None or manager.raft is None:
            yield f"member {raft_id:x} does not run"
        elif manager.raft.applied_index != leader.raft.applied_index or content_digest(manager.store.view) != expected:
            yield f"the store of {manager.host} at {manager.raft.applied_index}, not {leader.raft.applied_index}"


def _nodes(cluster: SimCluster, view: Tables) -> Iterator[str]:
    for node in view.nodes.values():
        if node.status.state is not NodeState.READY:
            yield f"node {node.description.hostname} is {node.status.state.name}"
        if node.role is not node.spec.role:
            yield f"node {node.description.hostname} is a {node.role.name} and shall be a {node.spec.role.name}"
        if node.role is NodeRole.MANAGER and node.manager_status is None:
            yield f"manager {node.description.hostname} is no member"


def _service(view: Tables, service: Service) -> Iterator[str]:
    """As many tasks run as are wanted, where they may."""
    if service.spec.mode.is_job:
        yield from what_a_job_misses(view, service)
        return
    name = service.spec.name
    running = [t for t in view.service_tasks(service.id) if t.status.state is TaskState.RUNNING]
    live = [t for t in view.service_tasks(service.id) if not t.status.state.is_terminal]
    takers = [n for n in view.nodes.values() if n.spec.availability is Availability.ACTIVE]
    is_global = service.spec.mode is ServiceMode.GLOBAL
    wanted = len(takers) if is_global else service.spec.replicas or 0
    if service.spec.stopped:
        wanted = 0
    if service.awaits_dependencies and not service.spec.stopped:
        yield from _waiting(view, service)
        return
    is_stuck = not takers and not is_global  # what runs on drained nodes stays, what does not run waits
    is_well = len(running) <= wanted if is_stuck else len(running) == len(live) == wanted
    if not is_well:
        states = " ".join(f"{t.slot or t.node_id[:4]}:{t.status.state.name}/{t.desired_state.name}" for t in live)
        yield f"service {name} runs {len(running)} of {wanted} tasks ({states})"
    for task in running:
        node = view.nodes.get(task.node_id)
        if node is None or not (is_stuck or _may_host(node)):
            yield f"task {task.name} runs on a node that takes none"
        if not _is_by(task, service) and not is_stuck:
            yield f"task {task.name} is of an older spec"


def _is_by(task: Task, service: Service) -> bool:
    """Whether the task is as the service's spec says. Of static addresses it has its own only, and keeps it as a chosen
    one when the service gives up static ones."""
    if _without_addresses(task.spec) != _without_addresses(service.spec.task):
        return False
    held = {(one.network_id, address.partition("/")[0]) for one in task.networks for address in one.addresses}
    for wanted in service.spec.task.networks:
        number = address_of_slot(wanted, 4, max(task.slot, 1))
        if number is not None and (wanted.target, str(IPv4Address(number))) not in held:
            return False
    return True


def _without_addresses(spec: TaskSpec) -> TaskSpec:
    networks = tuple(replace(one, addresses=(), virtual_addresses=()) for one in spec.networks)
    return replace(spec, networks=networks)


def _waiting(view: Tables, service: Service) -> Iterator[str]:
    """Nothing of it runs, and one of those that it waits for is not there."""
    if any(task.node_id for task in view.service_tasks(service.id) if not task.status.state.is_terminal):
        yield f"service {service.spec.name} waits for others, and has tasks on nodes"
    others = (view.ids_by_name.get((Kind.SERVICE, item.service), "") for item in service.spec.depends_on)
    if all(_is_there(view, view.services.get(service_id)) for service_id in others):
        yield f"service {service.spec.name} waits for others that are all there"


def _is_there(view: Tables, service: Service | None) -> bool:
    if service is None or service.spec.stopped or service.awaits_dependencies:
        return False
    running = [t for t in view.service_tasks(service.id) if t.status.state is TaskState.RUNNING]
    return len(running) >= (service.spec.replicas or 0)


def _may_host(node: Node) -> bool:
    return node.spec.availability is Availability.ACTIVE and node.status.state is NodeState.READY


def _host(view: Tables, host: Host) -> Iterator[str]:
    """The agent has the tasks that are its own, and nothing runs beside them."""
    agent = host.agent
    if agent is None or not agent.is_connected:
        yield f"agent {host.name} has no session"
        return
    own = (task for task in view.tasks_on(host.node_id) if task.spec.attachment is None)
    assigned = {task.id: task for task in own if is_assigned(task, host.node_id)}
    if set(agent.tasks.ids) != set(assigned):
        yield f"agent {host.name} has other tasks than the store"
    live = [task for task in assigned.values() if not task.status.state.is_terminal]
    needed = {object_id for task in live for object_id in needed_ids(task)}
    if set(agent.files.known) != needed:
        yield f"agent {host.name} has {len(agent.files.known)} secrets and configs where its tasks need {len(needed)}"
    if not set(host.files) <= {task.id for task in live}:
        yield f"files of nothing are left on {host.name}"
    running = sorted(task_id_of(state) for state in host.runtime.running())
    expected = sorted(t.id for t in assigned.values() if t.status.state is TaskState.RUNNING)
    if running != expected:
        yield f"{len(running)} containers run on {host.name} where {len(expected)} tasks do"
    left = [state.id for state in host.runtime.states.values() if task_id_of(state) not in assigned]
    if left:
        yield f"containers of nothing are left on {host.name}: {left}"
    kept = (t.status.container for t in view.tasks_on(host.node_id) if is_kept(t))
    ended = {container.container_id for container in kept if container is not None}
    if not ended <= set(host.runtime.states):
        yield f"containers of tasks in the history, with their logs, are missing on {host.name}"
    attached = set(host.overlay.sandboxes).difference(running, agent.plain.container_ids)
    if attached:
        yield f"sandboxes of nothing are left on {host.name}: {sorted(attached)}"
    yield from _addresses(host, assigned)


def _addresses(host: Host, assigned: dict[str, Task]) -> Iterator[str]:
    for task_id, sandbox in host.overlay.sandboxes.items():
        task = assigned.get(task_id)
        if task is None:
            continue  # a plain container's
        wanted = {a.network_id: a.addresses for a in task.networks}
        found = {a.network_id: a.addresses for a in sandbox.attachments}
        if wanted != found:
            yield f"the sandbox of {task.name} on {host.name} has other addresses than its task"

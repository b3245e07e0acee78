"""What the hosts were told of each network is what the managers know of it, once everything is at rest.

Found out from the objects alone, not by the dispatcher's own way to tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pyswarm_common.model import EndpointMode, Network, Node, Service, SessionAffinity, Task, TaskState
from pyswarm_manager.store.tables import Tables
from pyswarm_overlay.types import EndpointRecord, NetworkTable, ServiceRecord
from pyswarm_simulator.checks.network_changes import networks_of
from pyswarm_simulator.host import Host

_AFFINITIES = {SessionAffinity.NONE: "none", SessionAffinity.CLIENT_IP: "client_ip"}
_MODES = {EndpointMode.VIP: "vip", EndpointMode.DNSRR: "dnsrr"}


def what_hosts_miss(view: Tables, hosts: Iterable[Host]) -> Iterator[str]:
    """What some host was told otherwise than it is."""
    expected: dict[str, tuple[object, ...]] = {}
    for host in hosts:
        yield from _wrong_networks(view, host)
        yield from _wrong_containers(view, host)
        for network_id, table in host.overlay.tables.items():
            network = view.networks.get(network_id)
            if network is None:
                continue  # said above
            if network_id not in expected:
                expected[network_id] = _table(view, network)
            for wanted, found in zip(expected[network_id], _told(table), strict=True):
                if wanted != found:
                    yield f"{host.name} was told {found} of network {network.spec.name}, which is {wanted}"


def _wrong_networks(view: Tables, host: Host) -> Iterator[str]:
    wanted = {network.id for network in view.networks.values() if network.spec.ingress}
    for task in view.tasks_on(host.node_id):
        if _is_on_networks(task):
            wanted.update(one.network_id for one in task.networks)
    if wanted != set(host.overlay.tables):
        yield f"{host.name} has networks {sorted(host.overlay.tables)} where its tasks need {sorted(wanted)}"


def _wrong_containers(view: Tables, host: Host) -> Iterator[str]:
    """Each plain container has exactly the places that the managers have tasks for, with their addresses."""
    tasks = {
        (task.spec.attachment.container_id, one.network_id): (task.id, one.addresses)
        for task in view.tasks_on(host.node_id)
        if task.spec.attachment is not None and task.status.state is TaskState.RUNNING
        for one in task.networks
    }
    every = [task for task in view.tasks_on(host.node_id) if task.spec.attachment is not None]
    if len(every) != len(tasks):
        yield f"{len(every)} places of plain containers on {host.name}, of which {len(tasks)} are in use"
    assert host.agent is not None
    records = {record.container_id: record for record, _ in host.agent.plain.list()}
    found = {
        (sandbox_id, one.network_id): (one.endpoint_id, one.addresses)
        for sandbox_id, sandbox in host.overlay.sandboxes.items()
        if sandbox_id in records
        for one in sandbox.attachments
    }
    if found != tasks:
        yield f"plain containers of {host.name} are on {found} where the managers have {tasks}"
    if records != host.plain.records or set(records) - set(host.overlay.sandboxes):
        yield f"plain containers of {host.name} are not what is kept of them"


def _is_on_networks(task: Task) -> bool:
    return TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING


def _table(view: Tables, network: Network) -> tuple[object, ...]:
    """Of the network, of who is on it, and of its services."""
    endpoints: dict[str, tuple[object, ...]] = {}
    for task in view.tasks.values():
        for one in task.networks if task.node_id and _is_on_networks(task) else ():
            if one.network_id == network.id and one.addresses:
                endpoints[task.id] = _endpoint(view, task, one.addresses)
    for node in view.nodes.values() if network.spec.ingress else ():
        if node.ingress_addresses:
            endpoints[node.id] = (_bare(node.ingress_addresses), _address_of(node), "", False)
    services = {
        service.id: _service(service, network.id)
        for service in view.services.values()
        if network.id in {*networks_of(service), *(vip.network_id for vip in service.endpoint.vips)}
    }
    head = (network.spec.name, network.vni, tuple(network.subnets), tuple(network.gateways))
    return head, endpoints, services


def _endpoint(view: Tables, task: Task, addresses: tuple[str, ...]) -> tuple[object, ...]:
    is_ready = task.status.state is TaskState.RUNNING and task.desired_state is TaskState.RUNNING
    return _bare(addresses), _address_of(view.nodes.get(task.node_id)), task.service_id, is_ready


def _service(service: Service, network_id: str) -> tuple[object, ...]:
    vips = _bare(vip.address for vip in service.endpoint.vips if vip.network_id == network_id)
    spec = service.spec.endpoint
    return service.spec.name, vips, _MODES[spec.mode], _AFFINITIES[spec.session_affinity], spec.allow_from


def _address_of(node: Node | None) -> str:
    return node.description.data_path_address if node is not None else ""


def _bare(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(address.partition("/")[0] for address in addresses)


def _told(table: NetworkTable) -> tuple[object, ...]:
    head = (table.name, table.vni, table.subnets, table.gateways)
    services = {record.service_id: _told_service(record) for record in table.services if not table.ingress}
    return head, {record.endpoint_id: _told_endpoint(record) for record in table.endpoints}, services


def _told_endpoint(record: EndpointRecord) -> tuple[object, ...]:
    return record.addresses, record.node_address, record.service_id or "", record.ready


def _told_service(record: ServiceRecord) -> tuple[object, ...]:
    return record.name, record.vips, record.endpoint_mode, record.session_affinity, record.allow_from

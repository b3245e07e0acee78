"""Who has which addresses of a network, how many are left, and which nodes' routes are in its way. Pure.

Derived from the objects when somebody asks, by the rules that the planner gives addresses out by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyswarm.v1 import ipam_pb2
from pyswarm_common.model import Network, Node, Task
from pyswarm_manager.planner.allocate.addresses import AddressBook, Range, address_number
from pyswarm_manager.planner.allocate.subnets import collisions
from pyswarm_manager.store.network_claims import block, is_allocated, is_overlay, subnets_of
from pyswarm_manager.store.static_addresses import numbers
from pyswarm_manager.store.tables import Tables

MAX_WARNINGS = 32
MAX_MEMBERS = 10_000
"""Of one answer; beyond it the counts are still those of all."""
_MAX_UINT64 = (1 << 64) - 1


def usage_of(view: Tables, network: Network) -> ipam_pb2.NetworkUsage:
    """All there is to say of the network's addresses."""
    book = AddressBook()
    book.set_subnets(network)
    found = ipam_pb2.NetworkUsage(warnings=network_warnings(network, view.nodes.values()))
    _count_services(view, network, book, found)
    tasks = [task for task in view.tasks.values() if not task.status.state.is_terminal and _addresses(task, network)]
    for task in tasks:
        for address in _addresses(task, network):
            book.hold(address_number(address))
    if network.spec.ingress:
        for address in (address for node in view.nodes.values() for address in node.ingress_addresses):
            book.hold(address_number(address))
    ordered = sorted(tasks, key=lambda task: (task.node_id, task.service_name, task.slot, task.id))
    found.members.extend(_member(task, network, view.nodes.get(task.node_id)) for task in ordered[:MAX_MEMBERS])
    found.subnets.extend(_subnet(network, part) for part in book.ranges)
    return found


def _count_services(view: Tables, network: Network, book: AddressBook, found: ipam_pb2.NetworkUsage) -> None:
    for service in view.services.values():
        attachments = [item for item in service.spec.task.networks if item.target == network.id]
        for attachment in attachments:
            for number in numbers(attachment):
                book.keep(number)
        vips = [vip.address for vip in service.endpoint.vips if vip.network_id == network.id]
        for vip in vips:
            book.hold(address_number(vip))
        if attachments or vips:
            found.services.add(service_id=service.id, name=service.spec.name, virtual_addresses=vips)


def _subnet(network: Network, part: Range) -> ipam_pb2.SubnetUsage:
    mine = block(part.subnet)
    ranges = [text for text in network.spec.ip_ranges if mine.covers(block(text))]
    named = {name: text for name, text in network.spec.auxiliary_addresses.items() if mine.covers(block(text))}
    return ipam_pb2.SubnetUsage(
        subnet=part.subnet,
        gateway=next((text for text in network.gateways if text and mine.covers(block(text))), ""),
        ip_range=ranges[0] if ranges else "",
        auxiliary_addresses=named,
        in_use=min(len(part.used.keys() | part.blocked.keys()), _MAX_UINT64),
        available=min(part.free, _MAX_UINT64),
    )


def _member(task: Task, network: Network, node: Node | None) -> ipam_pb2.NetworkMember:
    plain = task.spec.attachment
    container = task.status.container
    return ipam_pb2.NetworkMember(
        task_id=task.id,
        name=task.name,
        service_id=task.service_id,
        container_id=plain.container_id if plain is not None else container.container_id if container else "",
        node_id=task.node_id,
        hostname="" if node is None else node.description.hostname,
        node_address="" if node is None else node.description.data_path_address or node.status.address,
        addresses=_addresses(task, network),
    )


def _addresses(task: Task, network: Network) -> tuple[str, ...]:
    return next((item.addresses for item in task.networks if item.network_id == network.id), ())


def network_warnings(network: Network, nodes: Iterable[Node]) -> list[str]:
    """One sentence for each route of a node that is in the network's way."""
    if not is_overlay(network.spec):
        return []
    if not is_allocated(network):
        return ["it is not allocated yet: if it stays so, the pools have no subnet left (update --default-addr-pool)"]
    return [
        f"subnet {subnet} overlaps {route}, which node {node.description.hostname or node.id} routes itself: "
        "containers of the network do not reach what is there"
        for node in nodes
        for subnet, route in collisions(subnets_of(network), node)
    ][:MAX_WARNINGS]


def node_warnings(node: Node, networks: Mapping[str, Network]) -> list[str]:
    """Likewise, of one node."""
    return [
        f"its route {route} overlaps subnet {subnet} of network {network.spec.name}: "
        "containers of the network do not reach what is there"
        for network in networks.values()
        if is_overlay(network.spec)
        for subnet, route in collisions(subnets_of(network), node)
    ][:MAX_WARNINGS]

"""The allocate stage: gives networks, nodes, services and tasks what they need of the cluster's common stock.

Decides VNIs, subnets, virtual IPs, published ports and task addresses; never takes back what an object still holds.
What cannot be had is explained, and asked for again when something is freed.
"""

from __future__ import annotations

import msgspec

from pyswarm_common.errors import Exhausted
from pyswarm_common.model import (
    ClusterSpec,
    Endpoint,
    EndpointMode,
    Network,
    NetworkAttachment,
    Node,
    PortConfig,
    PublishMode,
    Service,
    VirtualIP,
)
from pyswarm_manager.planner.allocate.addresses import Range
from pyswarm_manager.planner.allocate.subnets import (
    FIRST_VNI,
    INGRESS_VNI,
    default_gateway,
    free_subnet,
    free_vni,
    is_overlay,
)
from pyswarm_manager.planner.candidate import Candidate
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.store.tables import HOST_NETWORK, ingress_ports

FIRST_PORT = 30000
LAST_PORT = 32767


def allocate_network(draft: Draft, network: Network) -> None:
    """A VNI, and subnets and gateways where the user gave none."""
    if network.vni or not is_overlay(network.spec):
        return
    cluster = draft.tables.cluster
    try:
        vni = free_vni(draft.ledger.vnis, INGRESS_VNI if network.spec.ingress else FIRST_VNI)
        subnets = network.spec.subnets or (_free_subnet(draft, cluster.spec if cluster else ClusterSpec()),)
    except Exhausted as refusal:
        draft.explain(network.id, str(refusal))
        return
    gateways = network.spec.gateways or tuple(default_gateway(subnet) for subnet in subnets)
    draft.put_network(msgspec.structs.replace(network, vni=vni, subnets=subnets, gateways=gateways))


def _free_subnet(draft: Draft, cluster: ClusterSpec) -> str:
    known = (draft.network(network_id) for network_id in draft.tables.networks)
    return free_subnet(cluster, (network for network in known if network is not None))


def allocate_node(draft: Draft, node: Node) -> None:
    """The node's own addresses on the ingress network, from which it reaches tasks on other nodes."""
    network = _ingress_network(draft)
    if network is None:
        if node.ingress_addresses:
            draft.put_node(msgspec.structs.replace(node, ingress_addresses=()))
        return
    if node.ingress_addresses or not network.vni:
        return
    taken = _take(draft, network)
    if taken is None:
        draft.explain(node.id, _no_address(network))
        return
    _release(taken)  # counted again when the node is put into the draft
    draft.put_node(msgspec.structs.replace(node, ingress_addresses=_texts(taken)))


def _ingress_network(draft: Draft) -> Network | None:
    return draft.network(draft.ledger.ingress_id)


def allocate_service(draft: Draft, service: Service) -> None:
    """The service's endpoint: a virtual IP on each of its networks, and its published ports."""
    endpoint = Endpoint(vips=_vips(draft, service), ports=_ports(draft, service))
    if endpoint != service.endpoint:
        draft.put_service(msgspec.structs.replace(service, endpoint=endpoint))


def _vips(draft: Draft, service: Service) -> tuple[VirtualIP, ...]:
    if service.spec.endpoint.mode is not EndpointMode.VIP:
        return ()
    held = {vip.network_id: vip for vip in service.endpoint.vips}
    vips = []
    for attachment in service.spec.task.networks:
        network = draft.network(attachment.target)
        if network is None or not network.vni:
            continue
        vip = held.get(network.id) or _new_vip(draft, service, network)
        if vip is not None:
            vips.append(vip)
    return tuple(vips)


def _new_vip(draft: Draft, service: Service, network: Network) -> VirtualIP | None:
    taken = _take(draft, network)
    if taken is None:
        draft.explain(service.id, _no_address(network))
        return None
    _release(taken)  # counted again when the service is put into the draft
    part, number = taken[0]
    return VirtualIP(network_id=network.id, address=part.text(number))


def _ports(draft: Draft, service: Service) -> tuple[PortConfig, ...]:
    held = list(service.endpoint.ports)
    taken: dict[tuple[int, int], None] = {}
    ports = []
    for config in service.spec.endpoint.ports:
        if config.published_port:
            ports.append(config)
            continue
        known = next((port for port in held if msgspec.structs.replace(port, published_port=0) == config), None)
        if known is not None:
            held.remove(known)
            ports.append(known)
            continue
        number = _free_port(draft, config, taken)
        if number is None:
            draft.explain(service.id, f"no free port left in {FIRST_PORT}-{LAST_PORT} to publish {config.target_port}")
            continue
        taken[config.protocol, number] = None
        ports.append(msgspec.structs.replace(config, published_port=number))
    return tuple(ports)


def _free_port(draft: Draft, config: PortConfig, taken: dict[tuple[int, int], None]) -> int | None:
    ledger = draft.ledger
    for number in range(FIRST_PORT, LAST_PORT + 1):
        port = (config.protocol, number)
        if port in ledger.ports or port in draft.tables.published or port in taken:
            continue
        # A task by an older spec may still listen on a port that its service has given up.
        if not any(port in usage.ports for usage in ledger.usage.values()):
            return number
    return None


def needs_ingress(draft: Draft, service: Service) -> bool:
    """Whether tasks of the service must be reachable over the ingress network."""
    return bool(ingress_ports(service)) and bool(draft.ledger.ingress_id)


def allocate_task(draft: Draft, candidate: Candidate) -> None:
    """Addresses on every network of the task. All or none: half-attached tasks would hold what others need."""
    targets = [(attachment.target, attachment.aliases) for attachment in candidate.spec.networks]
    targets = [target for target in targets if target[0] != HOST_NETWORK]
    if any(port.publish_mode is PublishMode.INGRESS for port in candidate.ports) and draft.ledger.ingress_id:
        targets.append((draft.ledger.ingress_id, ()))
    attachments = []
    given: list[tuple[Range, int]] = []
    for network_id, aliases in targets:
        network = draft.network(network_id)
        taken = _addresses(draft, candidate, network_id, network)
        if taken is None:
            _release(given)
            return
        given += taken
        attachments.append(NetworkAttachment(network_id=network_id, addresses=_texts(taken), aliases=aliases))
    candidate.networks = tuple(attachments)
    candidate.allocated = True


def _addresses(
    draft: Draft, candidate: Candidate, network_id: str, network: Network | None
) -> list[tuple[Range, int]] | None:
    if network is None:
        candidate.message = f"network {network_id} not found"
        return None
    if not is_overlay(network.spec):
        return []
    taken = _take(draft, network) if network.vni else None
    if taken is None:
        candidate.message = _no_address(network) if network.vni else f"network {network.spec.name} is not allocated yet"
    return taken


def _take(draft: Draft, network: Network) -> list[tuple[Range, int]] | None:
    """One address of each subnet of the network, or None."""
    taken: list[tuple[Range, int]] = []
    for part in draft.ledger.book(network.id).ranges:
        number = part.take()
        if number is None:
            _release(taken)
            return None
        taken.append((part, number))
    return taken or None


def _release(taken: list[tuple[Range, int]]) -> None:
    for part, number in taken:
        part.used.pop(number, None)


def _texts(taken: list[tuple[Range, int]]) -> tuple[str, ...]:
    return tuple(f"{part.text(number)}/{part.prefix_length}" for part, number in taken)


def _no_address(network: Network) -> str:
    subnets = ", ".join(network.subnets)
    return f"no free address left in network {network.spec.name} ({subnets})"

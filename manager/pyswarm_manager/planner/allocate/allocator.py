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
    NetworkAttachmentSpec,
    Node,
    PortConfig,
    Protocol,
    Service,
    VirtualIP,
)
from pyswarm_common.network_options import overlay_options
from pyswarm_manager.planner.allocate.addresses import address_number
from pyswarm_manager.planner.allocate.subnets import (
    FIRST_VNI,
    INGRESS_VNI,
    families_of,
    free_subnet,
    free_vni,
    gateways_of,
)
from pyswarm_manager.planner.allocate.taking import give_back, no_address, take, take_family, texts
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.store.network_claims import block, has_addresses, is_allocated, is_overlay
from pyswarm_manager.store.static_addresses import text_of, virtual_address
from pyswarm_manager.store.tables import ingress_ports

FIRST_PORT = 30000
LAST_PORT = 32767


def allocate_network(draft: Draft, network: Network) -> None:
    """A VNI, and subnets and gateways where the user gave none."""
    if is_allocated(network) or not has_addresses(network.spec):
        return
    try:
        vni = _vni(draft, network) if is_overlay(network.spec) else 0
        subnets = _subnets(draft, network)
    except Exhausted as refusal:
        draft.explain(network.id, str(refusal))
        draft.refusals[network.id] = str(refusal)
        return
    gateways = gateways_of(network.spec, subnets)
    draft.put_network(msgspec.structs.replace(network, vni=vni, subnets=subnets, gateways=gateways))


def why_unallocated(draft: Draft, network: Network) -> str:
    """Why the network has nothing yet; also when this plan is not about it, so that what is said stays the same."""
    if network.id not in draft.refusals:
        try:
            if is_overlay(network.spec):
                _vni(draft, network)
            _subnets(draft, network)
            draft.refusals[network.id] = ""
        except Exhausted as refusal:
            draft.refusals[network.id] = str(refusal)
    reason = draft.refusals[network.id]
    return f"network {network.spec.name} is not allocated yet" + (f": {reason}" if reason else "")


def _vni(draft: Draft, network: Network) -> int:
    """The user's, or a free one: nobody is given what a network asks for that is not allocated yet."""
    used = draft.ledger.vnis
    asked = overlay_options(network.spec.options).vni
    if not asked:
        return free_vni(used, INGRESS_VNI if network.spec.ingress else FIRST_VNI)
    if used.get(asked, network.id) != network.id:
        holder = draft.network(used[asked])
        raise Exhausted(f"VXLAN network identifier {asked} is in use by network {holder.spec.name if holder else '?'}")
    return asked


def _subnets(draft: Draft, network: Network) -> tuple[str, ...]:
    """The user's, and one from the pools for each family that the network has no subnet of. IPv4 comes first."""
    given = network.spec.subnets
    present = {block(text).version for text in given}
    missing = [version for version in families_of(network.spec) if version not in present]
    if not missing:
        return given
    cluster = draft.tables.cluster
    spec = cluster.spec if cluster is not None else ClusterSpec()
    known = [found for network_id in draft.tables.networks if (found := draft.network(network_id)) is not None]
    chosen = tuple(
        free_subnet(spec, known, draft.ledger.routes, version=version, cluster_id=cluster.id if cluster else "")
        for version in missing
    )
    return tuple(sorted((*given, *chosen), key=lambda text: block(text).version))


def allocate_node(draft: Draft, node: Node) -> None:
    """The node's own addresses on the ingress network, from which it reaches tasks on other nodes."""
    network = _ingress_network(draft)
    if network is None:
        if node.ingress_addresses:
            draft.put_node(msgspec.structs.replace(node, ingress_addresses=()))
        return
    if not network.vni or _is_of(node, network):
        return
    taken = take(draft, network)
    if taken is None:
        draft.explain(node.id, no_address(network))
        return
    give_back(taken)  # counted again when the node is put into the draft
    draft.put_node(msgspec.structs.replace(node, ingress_addresses=texts(taken)))


def _is_of(node: Node, network: Network) -> bool:
    """Whether the node's addresses are of this ingress network, and not of one that was before it."""
    held = [block(address) for address in node.ingress_addresses]
    return bool(held) and all(any(block(subnet).covers(part) for subnet in network.subnets) for part in held)


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
    held = {(vip.network_id, block(vip.address).version): vip for vip in service.endpoint.vips}
    vips: list[VirtualIP] = []
    for attachment in service.spec.task.networks:
        network = draft.network(attachment.target)
        if network is None or not is_allocated(network):
            continue
        for version in dict.fromkeys(block(subnet).version for subnet in network.subnets):
            vip = _vip(draft, service, network, attachment, version, held.get((network.id, version)))
            if vip is not None:
                vips.append(vip)
    return tuple(vips)


def _vip(
    draft: Draft,
    service: Service,
    network: Network,
    attachment: NetworkAttachmentSpec,
    version: int,
    held: VirtualIP | None,
) -> VirtualIP | None:
    """The service's address of one family on one network: the user's, the one that it has, or a free one."""
    asked = virtual_address(attachment, version)
    if asked is None:
        return held or _new_vip(draft, service, network, version)
    if held is not None and address_number(held.address) == asked:
        return held
    text = text_of(version, asked)
    if draft.ledger.book(network.id).is_held(asked):
        draft.explain(service.id, f"address {text} of network {network.spec.name} is still in use")
        return held
    return VirtualIP(network_id=network.id, address=text)


def _new_vip(draft: Draft, service: Service, network: Network, version: int) -> VirtualIP | None:
    taken = take_family(draft, network, version)
    if taken is None:
        draft.explain(service.id, no_address(network, version))
        return None
    give_back([taken])  # counted again when the service is put into the draft
    part, number = taken
    return VirtualIP(network_id=network.id, address=part.text(number))


def _ports(draft: Draft, service: Service) -> tuple[PortConfig, ...]:
    wanted = service.spec.endpoint.ports
    # What the user names is not free for the automatic ones beside it, though the service holds it already.
    taken: dict[tuple[Protocol, int], None] = {
        (port.protocol, port.published_port): None for port in wanted if port.published_port
    }
    held = [port for port in service.endpoint.ports if (port.protocol, port.published_port) not in taken]
    ports = []
    for config in wanted:
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


def _free_port(draft: Draft, config: PortConfig, taken: dict[tuple[Protocol, int], None]) -> int | None:
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

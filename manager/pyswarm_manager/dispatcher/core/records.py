"""What a network table says of one task, node or service, already serialised.

Decides who holds an address on a network and who may be a backend: a task takes part from ASSIGNED until it has ended,
and is ready only while it runs *and* is wanted to. So the commit that tells a task to stop also withdraws it.
"""

from __future__ import annotations

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm.v1 import types_pb2
from pyswarm_common.model import Network, NetworkAttachment, Node, NodeState, PublishMode, Service, Task, TaskState
from pyswarm_manager.store.tables import NODE_NETWORKS


def node_address(node: Node | None) -> str:
    """Where the node's VXLAN packets go."""
    return "" if node is None else node.description.data_path_address or node.status.address


def holds_addresses(task: Task) -> bool:
    """Whether the task is, or is about to be, on its networks."""
    return bool(task.node_id) and TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING


def is_ready(task: Task) -> bool:
    """Whether the task may be a backend."""
    return task.status.state == TaskState.RUNNING and task.desired_state == TaskState.RUNNING


def takes_part(node: Node) -> bool:
    """Whether the node may be sending connections. One that is merely silent may."""
    return node.status.state in (NodeState.READY, NodeState.SUSPECT)


def task_record(
    task: Task, attachment: NetworkAttachment, address_of_node: str, *, is_local: bool = False
) -> bytes | None:
    """The EndpointRecord of a task on one of its networks; None while it is not on it.

    `is_local`: its node gives the addresses of that network. They are not known here: that node fills them in.
    """
    if not holds_addresses(task) or not (attachment.addresses or is_local):
        return None
    plain = task.spec.attachment
    record = pb.EndpointRecord(
        endpoint_id=task.id,
        name=plain.container_name if plain is not None else f"{task.name}.{task.id}",
        hostname=task.spec.container.hostname,
        addresses=[_bare(address) for address in attachment.addresses],
        node_address=address_of_node,
        service_id=task.service_id,
        ready=is_ready(task),
        aliases=attachment.aliases,
        slot=task.slot,
    )
    return record.SerializeToString()


def node_record(node: Node) -> bytes | None:
    """The EndpointRecord of a node on the ingress network: a peer, never a backend."""
    if not node.ingress_addresses:
        return None
    record = pb.EndpointRecord(
        endpoint_id=node.id,
        hostname=node.description.hostname,
        addresses=[_bare(address) for address in node.ingress_addresses],
        node_address=node_address(node),
    )
    return record.SerializeToString()


def service_records(service: Service, ingress_network_id: str) -> dict[str, bytes]:
    """Network id -> ServiceRecord, for every network on which the service is known."""
    spec = service.spec
    aliases: dict[str, list[str]] = {}
    for attachment in spec.task.networks:
        if attachment.target not in NODE_NETWORKS:
            aliases.setdefault(attachment.target, []).extend(attachment.aliases)
    vips: dict[str, list[str]] = {}
    for vip in service.endpoint.vips:
        vips.setdefault(vip.network_id, []).append(_bare(vip.address))
    network_ids = {**aliases, **vips}
    if ingress_network_id and ingress_ports(service):
        network_ids[ingress_network_id] = []
    return {
        network_id: pb.ServiceRecord(
            service_id=service.id,
            name=spec.name,
            aliases=aliases.get(network_id, ()),
            vips=vips.get(network_id, ()),
            endpoint_mode=types_pb2.EndpointMode.ValueType(spec.endpoint.mode),
            session_affinity=types_pb2.SessionAffinity.ValueType(spec.endpoint.session_affinity),
            allow_from=spec.endpoint.allow_from,
            ports=[
                pb.ServicePort(
                    name=port.name, protocol=types_pb2.Protocol.ValueType(port.protocol), target_port=port.target_port
                )
                for port in spec.endpoint.ports
            ],
        ).SerializeToString()
        for network_id in network_ids
    }


def ingress_ports(service: Service) -> tuple[pb.IngressPort, ...]:
    """The service's ports that every node listens on."""
    return tuple(
        pb.IngressPort(
            service_id=service.id,
            protocol=types_pb2.Protocol.ValueType(port.protocol),
            published_port=port.published_port,
            target_port=port.target_port,
            host_ip=port.host_ip,
            policy=types_pb2.IngressPolicy.ValueType(port.policy),
            proxy_protocol=port.proxy_protocol,
            session_affinity=types_pb2.SessionAffinity.ValueType(service.spec.endpoint.session_affinity),
        )
        for port in service.endpoint.ports
        if port.publish_mode == PublishMode.INGRESS and port.published_port
    )


def is_ingress(network: Network) -> bool:
    """Whether it is the one network of published ports."""
    return network.spec.ingress


def _bare(address: str) -> str:
    """An address without its prefix length."""
    return address.partition("/")[0]

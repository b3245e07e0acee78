"""Who is on a network, and what is left of its addresses, in docker's JSON shape. Pure."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.views.shapes import Json, given


def usage_json(usage: Any) -> Json:
    """What `network inspect` says beside the network itself: of all nodes, where docker knows of one."""
    return {
        "Containers": {member.container_id or member.task_id: _container(member) for member in usage.members},
        "Services": {service.name: _service(service, usage) for service in usage.services},
        "Peers": _peers(usage),
        "Status": {"IPAM": {"Subnets": {item.subnet: _counts(item) for item in usage.subnets}}},
        **given(Warnings=list(usage.warnings)),
    }


def _container(member: Any) -> Json:
    return {
        "Name": f"{member.name}.{member.task_id}" if member.service_id else member.name,
        "EndpointID": member.task_id,
        "Node": member.hostname or member.node_id,
        "IPv4Address": next((address for address in member.addresses if ":" not in address), ""),
        "IPv6Address": next((address for address in member.addresses if ":" in address), ""),
    }


def _service(service: Any, usage: Any) -> Json:
    tasks = [
        {
            "Name": f"{member.name}.{member.task_id}",
            "EndpointID": member.task_id,
            "EndpointIP": ",".join(address.partition("/")[0] for address in member.addresses),
            "Info": {"Host IP": member.node_address},
        }
        for member in usage.members
        if member.service_id == service.service_id
    ]
    return {"VIP": ",".join(address.partition("/")[0] for address in service.virtual_addresses), "Tasks": tasks}


def _peers(usage: Any) -> list[Json]:
    """The nodes that packets of the network go between."""
    peers = {member.node_id: member for member in usage.members if member.node_id}
    return [{"Name": member.hostname or node_id, "IP": member.node_address} for node_id, member in peers.items()]


def _counts(subnet: Any) -> Json:
    return {"IPsInUse": subnet.in_use, "DynamicIPsAvailable": subnet.available}

"""Whether a service can have the spec back that it had before: a network may be gone since, a port or a static address
another service's.

The store would refuse such a rollback, and the planner would propose it again and again; so the update pauses instead,
and says why.
"""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm_common.errors import AlreadyExists
from pyswarm_common.model import PublishMode, ServiceSpec
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.store.dependencies import cycle_sentence, find_cycle
from pyswarm_manager.store.static_addresses import check_static
from pyswarm_manager.store.tables import NODE_NETWORKS, Kind


def obstacle(draft: Draft, service_id: str, spec: ServiceSpec) -> str:
    """Why the service cannot have the spec (again); empty if it can."""
    tables = draft.tables
    for attachment in spec.task.networks:
        if attachment.target not in NODE_NETWORKS and attachment.target not in tables.networks:
            return f"network {attachment.target} not found"
    for port in spec.endpoint.ports:
        owner = tables.published.get((port.protocol, port.published_port), service_id)
        if port.publish_mode is PublishMode.INGRESS and port.published_port and owner != service_id:
            return f"port {port.published_port} is in use by service {tables.services[owner].spec.name}"
    service = draft.service(service_id)
    try:
        if service is not None:
            check_static(replace(service, spec=spec), service, tables.services.values(), tables.networks.get)
    except AlreadyExists as refusal:
        return str(refusal)
    cycle = find_cycle(spec, lambda name: draft.service(tables.ids_by_name.get((Kind.SERVICE, name), "")))
    return cycle_sentence(cycle) if cycle else ""

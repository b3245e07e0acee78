"""What an event says of its object, as docker's events do: its name, and each fact with its value before and after.

Pure. Names of facts that docker has are docker's (`state.old`, `replicas.new`, `updatestate.new`); others follow them.
Never says anything of secret material: only names.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyswarm_common.model import (
    AnyObject,
    Availability,
    Cluster,
    Config,
    HealthState,
    Network,
    Node,
    NodeRole,
    NodeState,
    Secret,
    Service,
    ServiceRevision,
    Task,
    TaskState,
    UpdateState,
)
from pyswarm_manager.store.changes import Event

LABEL_LIMIT = 32
"""Labels of one event, as attributes that bear their names; more are left out."""


def attributes(event: Event) -> dict[str, str]:
    """Name, labels, standing facts, and `*.old`/`*.new` of what changed."""
    old, new = event
    out = _labels(event.object)
    out |= _standing(event.object)
    if old is not None and new is not None:
        before, after = _facts(old), _facts(new)
        for name, value in after.items():
            if before.get(name) != value:
                out |= {f"{name}.old": before.get(name, ""), f"{name}.new": value}
    return out


def _labels(item: AnyObject) -> dict[str, str]:
    labels: Mapping[str, str] = {}
    match item:
        case Task():
            labels = item.labels
        case Node() | Service() | Network() | Secret() | Config():
            labels = item.spec.labels
    return dict(list(labels.items())[:LABEL_LIMIT])


def _standing(item: AnyObject) -> dict[str, str]:
    """What is told with every event of the object, whatever happened."""
    match item:
        case Cluster() | Service() | Network() | Secret() | Config():
            return {"name": item.spec.name}
        case Node():
            return {"name": item.description.hostname or item.id}
        case ServiceRevision():
            return {"name": item.spec.name, "service": item.service_id, "number": str(item.number)}
        case Task():
            out = {"name": item.name, "service": item.service_id, "service.name": item.service_name}
            out |= {"node": item.node_id} if item.node_id else {}
            return out | {"image": item.spec.container.image} | _ending(item)
    return {}


def _ending(task: Task) -> dict[str, str]:
    """How a container ended."""
    container = task.status.container
    if not task.status.state.is_terminal or container is None:
        return {}
    return {"exitCode": str(container.exit_code)} | ({"oomKilled": "true"} if container.oom_killed else {})


def _facts(item: AnyObject) -> dict[str, str]:
    """What is told when it changes."""
    match item:
        case Node():
            return _node_facts(item)
        case Service():
            return _service_facts(item)
        case Task():
            return {
                "state": TaskState(item.status.state).name.lower(),
                "desired": TaskState(item.desired_state).name.lower(),
                "health": _health(item),
                "node": item.node_id,
            }
        case Secret() | Config():
            return {"superseded": str(item.superseded).lower()}
    return {}


def _node_facts(node: Node) -> dict[str, str]:
    return {
        "state": NodeState(node.status.state).name.lower(),
        "availability": Availability(node.spec.availability).name.lower(),
        "role": NodeRole(node.role).name.lower(),
        "desiredrole": NodeRole(node.spec.role).name.lower(),
        "address": node.status.address,
        "networkrepairs": str(node.description.network_repairs),
        "networkrepair": node.description.network_repair,
    }


def _service_facts(service: Service) -> dict[str, str]:
    status = service.update_status
    replicas = service.spec.replicas
    return {
        "image": service.spec.task.container.image,
        "replicas": "" if replicas is None else str(replicas),
        "updatestate": "" if status is None else UpdateState(status.state).name.lower(),
        "stopped": str(service.spec.stopped).lower(),
        "revision": str(service.revision),
    }


def _health(task: Task) -> str:
    return HealthState(task.status.container.health if task.status.container is not None else 0).name.lower()

"""What a node has, what is reserved of it, and what is left: filled in when a node is read. Pure.

Counts as the scheduler does (`planner.ledger.reserved_on`), so that what is shown as free is what a task may reserve.
"""

from __future__ import annotations

from pyswarm.v1 import control_pb2
from pyswarm_common.codec import to_proto
from pyswarm_common.model import GenericResource, Node, Resources, TaskState
from pyswarm_manager.planner.ledger import reserved_on
from pyswarm_manager.store.tables import Tables


def node_resources(view: Tables, node: Node) -> control_pb2.NodeResources:
    """Totals, reservations and the difference."""
    total, reserved = node.description.resources, reserved_on(view, node.id)
    return control_pb2.NodeResources(
        total=to_proto(total),
        reserved=to_proto(reserved),
        free=to_proto(left(total, reserved)),
        tasks=sum(TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING for task in view.tasks_on(node.id)),
    )


def left(total: Resources, reserved: Resources) -> Resources:
    """What is not reserved. What a node does not tell of (0: no limit is known) stays 0."""
    return Resources(
        nano_cpus=total.nano_cpus - reserved.nano_cpus if total.nano_cpus else 0,
        memory_bytes=total.memory_bytes - reserved.memory_bytes if total.memory_bytes else 0,
        pids=total.pids - reserved.pids if total.pids else 0,
        generic=_generic_left(total.generic, reserved.generic),
    )


def _generic_left(
    total: tuple[GenericResource, ...], reserved: tuple[GenericResource, ...]
) -> tuple[GenericResource, ...]:
    """Named ones without those that are given away, counted ones less their sum; both kinds in the node's order."""
    names = {(item.kind, item.value) for item in reserved if item.value}
    counts: dict[str, int] = {}
    for item in reserved:
        counts[item.kind] = counts.get(item.kind, 0) + (0 if item.value else item.count)
    out = []
    for item in total:
        if item.value:
            out += [] if (item.kind, item.value) in names else [item]
        else:
            out.append(GenericResource(kind=item.kind, count=item.count - counts.get(item.kind, 0)))
    return tuple(out)

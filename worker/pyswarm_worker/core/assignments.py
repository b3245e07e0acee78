"""What an Assignments message changes: a complete one names everything, an increment the differences. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.codec import from_proto
from pyswarm_common.model import Config, Secret, Task


@dataclass(frozen=True, slots=True)
class AssignmentChange:
    """The differences to what the node had."""

    update_tasks: tuple[Task, ...]
    remove_task_ids: tuple[str, ...]
    update_files: tuple[Secret | Config, ...]
    remove_file_ids: tuple[str, ...]
    tables: tuple[pb.NetworkTable, ...]
    remove_network_ids: tuple[str, ...]
    ingress: pb.IngressTable | None


def change_of(message: pb.Assignments, task_ids: Iterable[str], network_ids: Iterable[str]) -> AssignmentChange:
    """`task_ids` and `network_ids` are what the node has now."""
    removed_tasks, removed_networks = list(message.remove_task_ids), list(message.remove_network_ids)
    if message.type == pb.Assignments.TYPE_COMPLETE:
        named_tasks = {task.id for task in message.update_tasks}
        named_networks = {table.network_id for table in message.networks}
        removed_tasks = [task_id for task_id in task_ids if task_id not in named_tasks]
        removed_networks = [network_id for network_id in network_ids if network_id not in named_networks]
    return AssignmentChange(
        update_tasks=tuple(from_proto(Task, task) for task in message.update_tasks),
        remove_task_ids=tuple(removed_tasks),
        update_files=(
            *(from_proto(Secret, secret) for secret in message.update_secrets),
            *(from_proto(Config, config) for config in message.update_configs),
        ),
        remove_file_ids=tuple(message.remove_file_ids),
        tables=tuple(message.networks),
        remove_network_ids=tuple(removed_networks),
        ingress=message.ingress if message.HasField("ingress") else None,
    )

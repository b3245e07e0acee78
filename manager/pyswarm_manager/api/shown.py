"""Services and tasks as whoever reads them may see them: without what opens a registry.

Every answer and every event goes through here. The credentials are written, delivered to the agents that pull with
them, and never read back; an update without any keeps those that there are.
"""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm.v1 import types_pb2
from pyswarm_common.codec import to_proto
from pyswarm_common.model import Service, ServiceRevision, ServiceSpec, Task


def shown_service(service: Service) -> types_pb2.Service:
    """For an answer."""
    message: types_pb2.Service = to_proto(service)
    for spec in (message.spec, message.previous_spec):
        if spec.task.container.registry_auth:
            spec.task.container.ClearField("registry_auth")
    return message


def shown_task(task: Task) -> types_pb2.Task:
    """For an answer."""
    message: types_pb2.Task = to_proto(task)
    if message.spec.container.registry_auth:
        message.spec.container.ClearField("registry_auth")
    return message


def shown_revision(revision: ServiceRevision) -> types_pb2.ServiceRevision:
    """For an answer."""
    message: types_pb2.ServiceRevision = to_proto(revision)
    if message.spec.task.container.registry_auth:
        message.spec.task.container.ClearField("registry_auth")
    return message


def with_kept_credentials(spec: ServiceSpec, old: ServiceSpec) -> ServiceSpec:
    """The new spec; with the old one's credentials, which no reader could have sent back."""
    kept = old.task.container.registry_auth
    if spec.task.container.registry_auth or not kept:
        return spec
    return replace(spec, task=replace(spec.task, container=replace(spec.task.container, registry_auth=kept)))

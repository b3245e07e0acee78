"""What a network's table says of a plain container."""

from __future__ import annotations

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.model import (
    ContainerSpec,
    NetworkAttachment,
    PlainAttachment,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from pyswarm_manager.dispatcher.core.records import task_record


def plain(state: TaskState) -> Task:
    spec = TaskSpec(
        container=ContainerSpec(hostname="c0ffee012345"),
        attachment=PlainAttachment(container_id="c0ffee0123456789", container_name="mine"),
    )
    place = NetworkAttachment("net", ("10.5.0.2/24",), ("other",))
    return Task(id="task1", node_id="n1", spec=spec, status=TaskStatus(state=state), networks=(place,))


def test_a_plain_container_is_known_by_its_own_names() -> None:
    task = plain(TaskState.RUNNING)
    data = task_record(task, task.networks[0], "192.0.2.1")
    assert data is not None
    record = pb.EndpointRecord.FromString(data)
    assert (record.name, record.hostname, list(record.aliases)) == ("mine", "c0ffee012345", ["other"])
    assert (record.endpoint_id, record.service_id, record.slot) == ("task1", "", 0)
    assert list(record.addresses) == ["10.5.0.2"]


def test_one_that_was_detached_is_in_no_table() -> None:
    task = plain(TaskState.SHUTDOWN)
    assert task_record(task, task.networks[0], "192.0.2.1") is None

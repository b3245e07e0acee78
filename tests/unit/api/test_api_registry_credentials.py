"""What opens a registry is written and delivered, and shown to nobody: not in answers, not in watches."""

from __future__ import annotations

from manager_harness import Swarm, asked, new_id, service_spec
from msgspec.structs import replace

from pyswarm.v1 import control_pb2 as pb
from pyswarm.v1 import watch_pb2 as wpb
from pyswarm.v1 import watch_pb2_grpc
from pyswarm_common.codec import to_proto
from pyswarm_common.model import ServiceSpec, Task

AUTH = b'{"username":"u","password":"Geheimnis-4711"}'


def opened(spec: ServiceSpec, auth: bytes = AUTH) -> ServiceSpec:
    return replace(spec, task=replace(spec.task, container=replace(spec.task.container, registry_auth=auth)))


def auth_of(swarm: Swarm, service_id: str) -> bytes:
    return swarm.leader.store.view.services[service_id].spec.task.container.registry_auth


async def test_no_answer_and_no_event_holds_them(swarm: Swarm) -> None:
    control = swarm.control()
    watch = watch_pb2_grpc.WatchStub(swarm.channel(swarm.leader)).Watch(wpb.WatchRequest())
    said = [await watch.read()]
    spec = opened(service_spec())
    created = await asked(control.CreateService(pb.CreateServiceRequest(spec=to_proto(spec))))
    service = created.service
    task = Task(id=new_id(), service_id=service.id, service_name="web", slot=1, spec=spec.task)
    await swarm.create(task)
    said += [await watch.read(), await watch.read()]
    watch.cancel()
    answers = [
        created,
        await asked(control.GetService(pb.GetServiceRequest(service="web"))),
        await asked(control.ListServices(pb.ListServicesRequest())),
        await asked(control.ListTasks(pb.ListTasksRequest())),
        await asked(control.GetTask(pb.GetTaskRequest(task=task.id))),
        await asked(control.ListServiceRevisions(pb.ListServiceRevisionsRequest(service="web"))),
        *said,
    ]
    assert [answer for answer in answers if b"4711" in answer.SerializeToString()] == []
    assert any(event.HasField("service") for answer in said for event in answer.events)
    assert auth_of(swarm, service.id) == AUTH


async def test_an_update_without_any_keeps_them_and_new_ones_replace_them(swarm: Swarm) -> None:
    control = swarm.control()
    created = await asked(control.CreateService(pb.CreateServiceRequest(spec=to_proto(opened(service_spec())))))
    service, spec = created.service, service_spec(replicas=4)
    for auth, expected in ((b"", AUTH), (b"other", b"other"), (b"", b"other")):
        request = pb.UpdateServiceRequest(
            service_id=service.id, version=service.meta.version, spec=to_proto(opened(spec, auth))
        )
        answer = await asked(control.UpdateService(request))
        service = answer.service
        assert auth_of(swarm, service.id) == expected
        assert b"4711" not in answer.SerializeToString()

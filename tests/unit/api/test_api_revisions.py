"""A service's history by the API, the way back to any spec in it, paused updates, and single tasks."""

from __future__ import annotations

import pytest
from manager_harness import Swarm, asked, new_id, service_spec, spec_of, wire
from msgspec.structs import replace

from pyswarm.v1 import control_pb2 as pb
from pyswarm.v1 import types_pb2
from pyswarm_common import errors
from pyswarm_common.model import (
    ClusterSpec,
    ContainerSpec,
    DependencyCondition,
    Service,
    ServiceDependency,
    ServiceMode,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
    UpdateState,
    UpdateStatus,
)
from pyswarm_manager.api.validate import check_cluster_spec, check_service_spec
from pyswarm_manager.store.changes import Update


async def create(swarm: Swarm, name: str = "web", **changes: object) -> types_pb2.Service:
    request = pb.CreateServiceRequest(spec=wire(service_spec(name, **changes)))  # type: ignore[arg-type]
    service: types_pb2.Service = (await asked(swarm.control().CreateService(request))).service
    return service


async def update(swarm: Swarm, service: types_pb2.Service, **fields: object) -> types_pb2.Service:
    request = pb.UpdateServiceRequest(service_id=service.id, version=service.meta.version, **fields)  # type: ignore[arg-type]
    updated: types_pb2.Service = (await asked(swarm.control().UpdateService(request))).service
    return updated


async def history(swarm: Swarm) -> list[types_pb2.ServiceRevision]:
    response = await asked(swarm.control().ListServiceRevisions(pb.ListServiceRevisionsRequest(service="web")))
    return list(response.revisions)


def imaged(service: types_pb2.Service, image: str) -> types_pb2.ServiceSpec:
    spec: types_pb2.ServiceSpec = spec_of(service)
    spec.task.container.image = image
    return spec


async def test_the_history_is_told_oldest_first_without_credentials(swarm: Swarm) -> None:
    container = ContainerSpec(image="busybox", registry_auth=b"hunter2")
    service = await create(swarm, task=TaskSpec(container=container))
    service = await update(swarm, service, spec=imaged(service, "busybox:2"))
    found = await history(swarm)
    assert [(item.number, item.spec.task.container.image) for item in found] == [(1, "busybox"), (2, "busybox:2")]
    assert service.revision == 2
    assert all(item.author for item in found)
    assert b"hunter2" not in b"".join(item.SerializeToString() for item in found)
    kept = swarm.leader.store.view.service_revisions
    assert [item.spec.task.container.registry_auth for item in kept.values()] == [b"hunter2"] * 2


async def test_a_service_goes_back_to_any_revision(swarm: Swarm) -> None:
    service = await create(swarm)
    for image in ("busybox:2", "busybox:3"):
        service = await update(swarm, service, spec=imaged(service, image))
    service = await update(swarm, service, rollback_to=1)
    assert service.spec.task.container.image == "busybox"
    assert service.previous_spec.task.container.image == "busybox:3"
    assert service.revision == 4
    assert service.update_status.state == UpdateState.ROLLBACK_STARTED
    assert service.update_status.message == "manually requested rollback to revision 1"
    with pytest.raises(errors.NotFound, match="service web has no revision 9: 1 to 4 are kept"):
        await update(swarm, service, rollback_to=9)
    with pytest.raises(errors.FailedPrecondition, match="service web is as in revision 1 already"):
        await update(swarm, service, rollback_to=1)


async def test_a_paused_update_goes_on_when_it_is_asked_for_again(swarm: Swarm) -> None:
    for paused, goes_on in (
        (UpdateState.PAUSED, UpdateState.UPDATING),
        (UpdateState.ROLLBACK_PAUSED, UpdateState.ROLLBACK_STARTED),
    ):
        name = f"web-{goes_on}"
        made = await create(swarm, name)
        kept = swarm.leader.store.view.services[made.id]
        await swarm.leader.store.propose([Update(replace(kept, update_status=UpdateStatus(state=paused)))])
        held = (await asked(swarm.control().GetService(pb.GetServiceRequest(service=name)))).service
        again = await update(swarm, held, spec=held.spec)
        assert again.update_status.state == goes_on
        assert again.spec_version > held.spec_version
        assert again.revision == held.revision == 1


# ---- tasks


async def with_task(swarm: Swarm, **fields: object) -> Task:
    service = await create(swarm)
    task = Task(id=new_id(), service_id=service.id, service_name="web", slot=1, **fields)  # type: ignore[arg-type]
    await swarm.create(task)
    return task


def view(swarm: Swarm, task: Task) -> Task | None:
    return swarm.leader.store.view.tasks.get(task.id)


RUNS = {"status": TaskStatus(state=TaskState.RUNNING), "desired_state": TaskState.RUNNING}


@pytest.mark.parametrize("by", ["id", "name", "prefix"])
async def test_a_task_is_asked_to_restart(swarm: Swarm, by: str) -> None:
    task = await with_task(swarm, **RUNS)
    reference = {"id": task.id, "name": "web.1", "prefix": task.id[:10]}[by]
    answer = await asked(swarm.control().RestartTask(pb.RestartTaskRequest(task=reference)))
    assert answer.task_id == task.id
    kept = view(swarm, task)
    assert kept is not None
    assert kept.restart_requested == 1


async def test_a_name_means_the_task_that_is_meant_to_run(swarm: Swarm) -> None:
    old = await with_task(swarm, status=TaskStatus(state=TaskState.FAILED), desired_state=TaskState.SHUTDOWN)
    new = replace(old, id=new_id(), **RUNS)
    await swarm.create(new)
    answer = await asked(swarm.control().RestartTask(pb.RestartTaskRequest(task="web.1")))
    assert answer.task_id == new.id
    with pytest.raises(errors.FailedPrecondition, match=r"is not meant to run any more: restart web\.1 instead"):
        await asked(swarm.control().RestartTask(pb.RestartTaskRequest(task=old.id)))


async def test_what_cannot_be_restarted_is_refused(swarm: Swarm) -> None:
    with pytest.raises(errors.NotFound):
        await asked(swarm.control().RestartTask(pb.RestartTaskRequest(task="nothing")))
    job = Service(id=new_id(), spec=service_spec("job", mode=ServiceMode.REPLICATED_JOB))
    await swarm.create(job)
    task = Task(id=new_id(), service_id=job.id, service_name="job", slot=1)
    await swarm.create(task)
    with pytest.raises(errors.FailedPrecondition, match="belongs to a job, whose tasks run once"):
        await asked(swarm.control().RestartTask(pb.RestartTaskRequest(task=task.id)))


async def test_an_ended_task_is_forgotten_and_a_running_one_only_by_force(swarm: Swarm) -> None:
    task = await with_task(swarm, **RUNS)
    with pytest.raises(errors.FailedPrecondition, match="has not ended: stop and remove it with --force"):
        await asked(swarm.control().RemoveTask(pb.RemoveTaskRequest(task=task.id)))
    await asked(swarm.control().RemoveTask(pb.RemoveTaskRequest(task=task.id, force=True)))
    kept = view(swarm, task)
    assert kept is not None
    assert kept.desired_state is TaskState.REMOVE
    ended = replace(task, id=new_id(), status=TaskStatus(state=TaskState.FAILED), desired_state=TaskState.SHUTDOWN)
    await swarm.create(ended)
    await asked(swarm.control().RemoveTask(pb.RemoveTaskRequest(task=ended.id)))
    assert view(swarm, ended) is None


# ---- dependencies


async def test_circles_of_dependencies_are_refused_at_creation_and_update(swarm: Swarm) -> None:
    def on(name: str) -> tuple[ServiceDependency, ...]:
        return (ServiceDependency(service=name, condition=DependencyCondition.HEALTHY),)

    await create(swarm, "a", depends_on=on("b"))
    with pytest.raises(errors.InvalidArgument, match="in a circle: b -> a -> b"):
        await create(swarm, "b", depends_on=on("a"))
    second = await create(swarm, "b")
    with pytest.raises(errors.InvalidArgument, match="in a circle: b -> a -> b"):
        await update(swarm, second, spec=wire(service_spec("b", depends_on=on("a"))))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["web"], "service 'web' cannot wait for itself"),
        (["db", "db"], "service 'db' is waited for twice"),
        (["no name"], "name must be valid as a DNS name component"),
        (["db"] * 65, "dependencies"),
    ],
)
def test_dependencies_that_cannot_be_meant(names: list[str], sentence: str) -> None:
    spec = service_spec("web", depends_on=tuple(ServiceDependency(service=name) for name in names))
    assert any(sentence in words.replace('"', "'") for _, words in check_service_spec(spec))


def test_the_history_has_a_limit() -> None:
    assert list(check_cluster_spec(ClusterSpec(revision_limit=1000))) == []
    assert [path for path, _ in check_cluster_spec(ClusterSpec(revision_limit=1001))] == ["revision_limit"]

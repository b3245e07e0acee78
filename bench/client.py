"""A blocking client of one host's daemon in a lab, for measuring: create, scale, wait by watching."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

import grpc

from pyswarm.v1 import control_pb2, control_pb2_grpc, types_pb2, watch_pb2, watch_pb2_grpc
from pyswarm_common.codec import to_proto
from pyswarm_common.model import (
    ContainerSpec,
    NetworkAttachmentSpec,
    NetworkSpec,
    Placement,
    PortConfig,
    ServiceSpec,
    TaskSpec,
)
from pyswarm_common.model.specs import EndpointSpec

RUNNING = types_pb2.TASK_STATE_RUNNING


class Client:
    """Speaks to the daemon behind a unix socket."""

    def __init__(self, socket_path: str, timeout_s: float = 30.0) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket_path}")
        self._timeout_s = timeout_s
        self.control = control_pb2_grpc.ControlStub(self._channel)
        self.watch = watch_pb2_grpc.WatchStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def create_network(self, name: str, subnet: str) -> str:
        spec = NetworkSpec(name=name, driver="overlay", subnets=(subnet,))
        request = control_pb2.CreateNetworkRequest(spec=to_proto(spec))
        return self.control.CreateNetwork(request, timeout=self._timeout_s).network.id

    def create_service(self, spec: ServiceSpec) -> str:
        request = control_pb2.CreateServiceRequest(spec=to_proto(spec))
        return self.control.CreateService(request, timeout=self._timeout_s).service.id

    def scale(self, service_id: str, replicas: int, timeout_s: float | None = None) -> None:
        """One attempt: read the service, write it back with another count."""
        limit = timeout_s or self._timeout_s
        service = self.control.GetService(control_pb2.GetServiceRequest(service=service_id), timeout=limit).service
        service.spec.replicas = replicas
        self.control.UpdateService(
            control_pb2.UpdateServiceRequest(service_id=service.id, version=service.meta.version, spec=service.spec),
            timeout=limit,
        )

    def remove_service(self, service_id: str) -> None:
        self.control.RemoveService(control_pb2.RemoveServiceRequest(service=service_id), timeout=self._timeout_s)

    def tasks(self, service_id: str) -> list[types_pb2.Task]:
        options = control_pb2.ListOptions(consistency=control_pb2.CONSISTENCY_LOCAL)
        request = control_pb2.ListTasksRequest(options=options, service_ids=[service_id])
        return list(self.control.ListTasks(request, timeout=self._timeout_s).tasks)

    def nodes(self) -> list[types_pb2.Node]:
        options = control_pb2.ListOptions(consistency=control_pb2.CONSISTENCY_LOCAL)
        return list(
            self.control.ListNodes(control_pb2.ListNodesRequest(options=options), timeout=self._timeout_s).nodes
        )

    def wait_tasks(
        self, service_id: str, done: Callable[[dict[str, types_pb2.Task]], bool], timeout_s: float = 120.0
    ) -> dict[str, types_pb2.Task]:
        """Follow the service's tasks (by id) until `done` says so."""
        request = watch_pb2.WatchRequest(kinds=[watch_pb2.OBJECT_KIND_TASK], service_ids=[service_id])
        stream = self.watch.Watch(request, timeout=timeout_s)
        try:
            next(stream)  # from here on nothing is missed
            tasks = {task.id: task for task in self.tasks(service_id)}
            while not done(tasks):
                for event in next(stream).events:
                    if event.action == watch_pb2.CHANGE_ACTION_REMOVE:
                        tasks.pop(event.task.id, None)
                    else:
                        tasks[event.task.id] = event.task
            return tasks
        finally:
            stream.cancel()

    def wait_running(self, service_id: str, count: int, timeout_s: float = 120.0) -> list[types_pb2.Task]:
        tasks = self.wait_tasks(service_id, lambda all_: len(running(all_)) >= count, timeout_s)
        return running(tasks)

    def wait_gone(self, service_id: str, timeout_s: float = 120.0) -> None:
        self.wait_tasks(service_id, lambda tasks: not tasks, timeout_s)


def running(tasks: dict[str, types_pb2.Task]) -> list[types_pb2.Task]:
    """Those that run and are wanted to."""
    return [t for t in tasks.values() if t.status.state == RUNNING and t.desired_state == RUNNING]


def service(
    name: str,
    image: str,
    replicas: int,
    *,
    network_id: str = "",
    constraints: tuple[str, ...] = (),
    ports: tuple[PortConfig, ...] = (),
    command: tuple[str, ...] = (),
) -> ServiceSpec:
    """With SIGKILL as stop signal: `sleep` as pid 1 ignores SIGTERM, and its grace period would be measured instead."""
    task = TaskSpec(
        container=ContainerSpec(image=image, stop_signal="SIGKILL", command=command),
        networks=(NetworkAttachmentSpec(target=network_id),) if network_id else (),
        placement=Placement(constraints=constraints),
    )
    return ServiceSpec(name=name, replicas=replicas, task=task, endpoint=EndpointSpec(ports=ports))


def wait_for(condition: Callable[[], bool], timeout_s: float, pause_s: float = 0.02) -> float:
    """Seconds until the condition held. Errors of the call count as "not yet"."""
    start = time.monotonic()
    while True:
        try:
            if condition():
                return time.monotonic() - start
        except grpc.RpcError as error:
            last: object = error
        else:
            last = "not yet"
        if time.monotonic() - start > timeout_s:
            raise TimeoutError(f"nothing after {timeout_s} s: {last}")
        time.sleep(pause_s)

"""A daemon's socket with a small real store behind it: versions, refusals and a watch, but no cluster."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from pyswarm.v1 import (
    control_pb2,
    control_pb2_grpc,
    localnet_pb2,
    localnet_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    types_pb2,
    watch_pb2,
    watch_pb2_grpc,
)


class FakeDaemon(
    control_pb2_grpc.ControlServicer,
    watch_pb2_grpc.WatchServicer,
    node_pb2_grpc.DaemonServicer,
    node_pb2_grpc.ImagesServicer,
    localnet_pb2_grpc.LocalNetworksServicer,
):
    """Objects are put into the dictionaries by the test; `rivals` lets somebody else be faster."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix://{folder}/d.sock"
        self.services: dict[str, types_pb2.Service] = {}
        self.tasks: dict[str, types_pb2.Task] = {}
        self.nodes: dict[str, types_pb2.Node] = {}
        self.version = 100
        self.rivals = 0
        self.leaderless = False
        self.updates: list[Any] = []
        self.resolved: dict[str, node_pb2.ResolveImageResponse] = {}
        self.resolutions: list[node_pb2.ResolveImageRequest] = []
        self.watches: list[queue.Queue[Any]] = []
        self.on_watch: list[Any] = []
        self._server = grpc.server(ThreadPoolExecutor(8))
        control_pb2_grpc.add_ControlServicer_to_server(self, self._server)
        watch_pb2_grpc.add_WatchServicer_to_server(self, self._server)
        node_pb2_grpc.add_ImagesServicer_to_server(self, self._server)
        node_pb2_grpc.add_DaemonServicer_to_server(self, self._server)
        localnet_pb2_grpc.add_LocalNetworksServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{folder}/d.sock")
        self._server.start()

    def ResolveImage(self, request: Any, context: Any) -> node_pb2.ResolveImageResponse:
        """What a test has put there; any other image is on some node."""
        self.resolutions.append(request)
        return self.resolved.get(request.reference, node_pb2.ResolveImageResponse(is_in_cluster=True))

    def ListLocalNetworks(self, request: Any, context: Any) -> Any:
        return localnet_pb2.ListLocalNetworksResponse()

    def close(self) -> None:
        for watch in self.watches:
            watch.put(None)
        self._server.stop(None).wait()

    # ------------------------------------------------------------ objects

    def put_service(self, name: str, replicas: int = 1, **fields: Any) -> types_pb2.Service:
        spec = types_pb2.ServiceSpec(name=name, replicas=replicas)
        spec.task.container.image = "img:1"
        service = types_pb2.Service(id=f"{name}id".ljust(25, "0"), spec=spec, **fields)
        service.meta.version = self._next()
        self.services[service.id] = service
        return service

    def put_task(self, service: types_pb2.Service, slot: int, state: Any, **fields: Any) -> types_pb2.Task:
        task = types_pb2.Task(
            id=f"{service.spec.name}task{slot}v{self.version}".ljust(25, "0"),
            service_id=service.id,
            service_name=service.spec.name,
            slot=slot,
            desired_state=types_pb2.TASK_STATE_RUNNING,
            **fields,
        )
        task.spec.CopyFrom(service.spec.task)
        task.status.state = state
        task.meta.version = self._next()
        self.tasks[task.id] = task
        return task

    def tell(self, action: Any, **content: Any) -> None:
        """An event for every watch."""
        event = watch_pb2.WatchEvent(action=action, **content)
        for watch in self.watches:
            watch.put(watch_pb2.WatchResponse(version=self.version, events=[event]))

    def _next(self) -> int:
        self.version += 1
        return self.version

    def _service(self, name: str, context: Any) -> types_pb2.Service:
        for service in self.services.values():
            if name in (service.id, service.spec.name):
                return service
        context.abort(grpc.StatusCode.NOT_FOUND, f"service {name} not found")
        raise AssertionError

    # ------------------------------------------------------------ methods

    def GetInfo(self, request: Any, context: Any) -> Any:
        return node_pb2.GetInfoResponse(node_id="n1id", version="1.2.3", state=node_pb2.GetInfoResponse.STATE_ACTIVE)

    def ListServices(self, request: Any, context: Any) -> Any:
        counts = {
            service.id: control_pb2.ServiceTaskCounts(
                desired=service.spec.replicas,
                running=sum(task.status.state == types_pb2.TASK_STATE_RUNNING for task in self._tasks_of(service.id)),
            )
            for service in self.services.values()
        }
        return control_pb2.ListServicesResponse(services=self.services.values(), statuses=counts)

    def _tasks_of(self, service_id: str) -> list[types_pb2.Task]:
        return [task for task in self.tasks.values() if task.service_id == service_id]

    def ListTasks(self, request: Any, context: Any) -> Any:
        found = [task for task in self.tasks.values() if task.service_id in request.service_ids]
        return control_pb2.ListTasksResponse(tasks=found)

    def ListNodes(self, request: Any, context: Any) -> Any:
        """Two pages, to have pages."""
        nodes = sorted(self.nodes.values(), key=lambda node: node.id)
        if request.options.page_token:
            return control_pb2.ListNodesResponse(nodes=nodes[1:])
        return control_pb2.ListNodesResponse(nodes=nodes[:1], next_page_token="1" if nodes[1:] else "")

    def GetService(self, request: Any, context: Any) -> Any:
        return control_pb2.GetServiceResponse(service=self._service(request.service, context))

    def CreateService(self, request: Any, context: Any) -> Any:
        if any(service.spec.name == request.spec.name for service in self.services.values()):
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"service {request.spec.name} already exists")
        service = self.put_service(request.spec.name)
        service.spec.CopyFrom(request.spec)
        return control_pb2.CreateServiceResponse(service=service)

    def UpdateService(self, request: Any, context: Any) -> Any:
        service = self.services[request.service_id]
        self.updates.append(request)
        if self.leaderless:
            context.abort(grpc.StatusCode.UNAVAILABLE, "no leader")
        if self.rivals:
            self.rivals -= 1
            service.spec.labels[f"rival{self.rivals}"] = "was here"
            service.meta.version = self._next()
        if request.version != service.meta.version:
            context.abort(grpc.StatusCode.ABORTED, "update out of sequence")
        service.spec.CopyFrom(request.spec)
        service.meta.version = self._next()
        return control_pb2.UpdateServiceResponse(service=service)

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        if self.on_watch:
            status, details = self.on_watch.pop(0)
            context.abort(status, details)
        events: queue.Queue[Any] = queue.Queue()
        self.watches.append(events)
        yield watch_pb2.WatchResponse(version=self.version)
        while (response := events.get()) is not None:
            yield response

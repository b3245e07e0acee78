"""The control API: every method of Control, on every manager.

Reads are answered here, from this manager's own view, as fresh as the caller wants. Writes happen on the leader: the
forwarder runs them here or there. What a write means is in `services`, `networks`, `nodes` and `clusters`.

Nodes are an exception: only the leader knows which managers are reachable, so a fresh read of nodes goes there too.
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import asyncio
from collections.abc import Callable

from pyswarm.v1 import control_pb2, control_pb2_grpc, types_pb2
from pyswarm_common.codec import to_proto
from pyswarm_common.ids import IdSource
from pyswarm_common.model import Network, Node, NodeState, Service, ServiceMode, Task, TaskState
from pyswarm_common.model.sizes import kept_replicas
from pyswarm_manager.api import clusters, networks, nodes, revisions, services, tasks
from pyswarm_manager.api.caller import Context, caller_of, is_admin
from pyswarm_manager.api.calls import Calls
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.api.jobs import count_job_tasks
from pyswarm_manager.api.listing import fill_page, select
from pyswarm_manager.api.network_usage import node_warnings, usage_of
from pyswarm_manager.api.node_resources import node_resources
from pyswarm_manager.api.reads import with_manager_status
from pyswarm_manager.api.shown import shown_revision, shown_service, shown_task
from pyswarm_manager.ports import Clock, RaftPort
from pyswarm_manager.store.lookup import find_network, find_node, find_service, find_task
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.writes import StorePort, Writer

pb = control_pb2


class ControlServicer(control_pb2_grpc.ControlServicer):
    """Serves Control."""

    def __init__(
        self,
        store: StorePort,
        raft: RaftPort,
        forwarder: LeaderForwarder,
        ids: IdSource,
        clock: Clock,
        manager_changes: asyncio.Lock | None = None,
    ) -> None:
        self._store, self._raft = store, raft
        self._calls = Calls("Control", store, raft, forwarder)
        self._writer = Writer(store, raft, ids, clock, manager_changes or asyncio.Lock())

    # ---- cluster

    async def GetCluster(self, request: pb.GetClusterRequest, context: Context) -> pb.GetClusterResponse:
        view = await self._calls.view(context, request.consistency)
        for_admin = is_admin(caller_of(context))
        return pb.GetClusterResponse(cluster=clusters.to_message(clusters.get_cluster(view), for_admin=for_admin))

    async def UpdateCluster(self, request: pb.UpdateClusterRequest, context: Context) -> pb.UpdateClusterResponse:
        async def local() -> pb.UpdateClusterResponse:
            cluster = await clusters.update_cluster(self._writer, request)
            return pb.UpdateClusterResponse(cluster=clusters.to_message(cluster, for_admin=True))

        return await self._calls.on_leader(context, "UpdateCluster", request, pb.UpdateClusterResponse, local)

    # ---- nodes

    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesResponse:
        async def local() -> pb.ListNodesResponse:
            view = await self._calls.view(context, request.options.consistency)
            roles: frozenset[int] = frozenset(request.roles)
            response = pb.ListNodesResponse()
            selected = select(view.nodes, request.options, lambda node: not roles or node.spec.role in roles)
            page, response.next_page_token = fill_page(selected, request.options, response.nodes, self._node)
            for node in page if request.resources else ():
                response.resources[node.id].CopyFrom(node_resources(view, node))
            return response

        if request.options.consistency == pb.CONSISTENCY_LOCAL:
            return await local()
        return await self._calls.on_leader(context, "ListNodes", request, pb.ListNodesResponse, local, is_read=True)

    async def GetNode(self, request: pb.GetNodeRequest, context: Context) -> pb.GetNodeResponse:
        async def local() -> pb.GetNodeResponse:
            view = await self._calls.view(context, request.consistency)
            node = find_node(view, request.node)
            warnings = node_warnings(node, view.networks)
            return pb.GetNodeResponse(node=self._node(node), resources=node_resources(view, node), warnings=warnings)

        if request.consistency == pb.CONSISTENCY_LOCAL:
            return await local()
        return await self._calls.on_leader(context, "GetNode", request, pb.GetNodeResponse, local, is_read=True)

    async def UpdateNode(self, request: pb.UpdateNodeRequest, context: Context) -> pb.UpdateNodeResponse:
        may_change_role = is_admin(caller_of(context))

        async def local() -> pb.UpdateNodeResponse:
            return pb.UpdateNodeResponse(
                node=self._node(await nodes.update_node(self._writer, request, may_change_role=may_change_role))
            )

        return await self._calls.on_leader(context, "UpdateNode", request, pb.UpdateNodeResponse, local)

    async def RemoveNode(self, request: pb.RemoveNodeRequest, context: Context) -> pb.RemoveNodeResponse:
        async def local() -> pb.RemoveNodeResponse:
            await nodes.remove_node(self._writer, request)
            return pb.RemoveNodeResponse()

        return await self._calls.on_leader(context, "RemoveNode", request, pb.RemoveNodeResponse, local)

    # ---- services

    async def ListServices(self, request: pb.ListServicesRequest, context: Context) -> pb.ListServicesResponse:
        view = await self._calls.view(context, request.options.consistency)
        modes: frozenset[int] = frozenset(request.modes)
        response = pb.ListServicesResponse()
        selected = select(view.services, request.options, lambda service: not modes or service.spec.mode in modes)
        page, response.next_page_token = fill_page(selected, request.options, response.services, shown_service)
        if request.status:
            for service in page:
                response.statuses[service.id].CopyFrom(count_tasks(view, service))
        return response

    async def GetService(self, request: pb.GetServiceRequest, context: Context) -> pb.GetServiceResponse:
        view = await self._calls.view(context, request.consistency)
        return pb.GetServiceResponse(service=shown_service(find_service(view, request.service)))

    async def CreateService(self, request: pb.CreateServiceRequest, context: Context) -> pb.CreateServiceResponse:
        async def local() -> pb.CreateServiceResponse:
            return pb.CreateServiceResponse(service=shown_service(await services.create_service(self._writer, request)))

        return await self._calls.on_leader(context, "CreateService", request, pb.CreateServiceResponse, local)

    async def UpdateService(self, request: pb.UpdateServiceRequest, context: Context) -> pb.UpdateServiceResponse:
        async def local() -> pb.UpdateServiceResponse:
            return pb.UpdateServiceResponse(service=shown_service(await services.update_service(self._writer, request)))

        return await self._calls.on_leader(context, "UpdateService", request, pb.UpdateServiceResponse, local)

    async def RemoveService(self, request: pb.RemoveServiceRequest, context: Context) -> pb.RemoveServiceResponse:
        async def local() -> pb.RemoveServiceResponse:
            return pb.RemoveServiceResponse(service_id=await services.remove_service(self._writer, request))

        return await self._calls.on_leader(context, "RemoveService", request, pb.RemoveServiceResponse, local)

    async def ListServiceRevisions(
        self, request: pb.ListServiceRevisionsRequest, context: Context
    ) -> pb.ListServiceRevisionsResponse:
        view = await self._calls.view(context, request.consistency)
        found = revisions.list_revisions(view, find_service(view, request.service))
        return pb.ListServiceRevisionsResponse(revisions=[shown_revision(revision) for revision in found])

    # ---- tasks

    async def RestartTask(self, request: pb.RestartTaskRequest, context: Context) -> pb.RestartTaskResponse:
        async def local() -> pb.RestartTaskResponse:
            return pb.RestartTaskResponse(task_id=(await tasks.restart_task(self._writer, request.task)).id)

        return await self._calls.on_leader(context, "RestartTask", request, pb.RestartTaskResponse, local)

    async def RemoveTask(self, request: pb.RemoveTaskRequest, context: Context) -> pb.RemoveTaskResponse:
        async def local() -> pb.RemoveTaskResponse:
            task = await tasks.remove_task(self._writer, request.task, force=request.force)
            return pb.RemoveTaskResponse(task_id=task.id)

        return await self._calls.on_leader(context, "RemoveTask", request, pb.RemoveTaskResponse, local)

    async def ListTasks(self, request: pb.ListTasksRequest, context: Context) -> pb.ListTasksResponse:
        view = await self._calls.view(context, request.options.consistency)
        response = pb.ListTasksResponse()
        selected = select(_task_candidates(view, request), request.options, _task_filter(request))
        _, response.next_page_token = fill_page(selected, request.options, response.tasks, shown_task)
        return response

    async def GetTask(self, request: pb.GetTaskRequest, context: Context) -> pb.GetTaskResponse:
        view = await self._calls.view(context, request.consistency)
        return pb.GetTaskResponse(task=shown_task(find_task(view, request.task)))

    # ---- networks

    async def ListNetworks(self, request: pb.ListNetworksRequest, context: Context) -> pb.ListNetworksResponse:
        view = await self._calls.view(context, request.options.consistency)
        response = pb.ListNetworksResponse()
        selected = select(view.networks, request.options, _everything)
        _, response.next_page_token = fill_page(selected, request.options, response.networks, to_proto)
        return response

    async def GetNetwork(self, request: pb.GetNetworkRequest, context: Context) -> pb.GetNetworkResponse:
        view = await self._calls.view(context, request.consistency)
        network = find_network(view, request.network)
        return pb.GetNetworkResponse(network=to_proto(network), usage=usage_of(view, network))

    async def CreateNetwork(self, request: pb.CreateNetworkRequest, context: Context) -> pb.CreateNetworkResponse:
        async def local() -> pb.CreateNetworkResponse:
            return pb.CreateNetworkResponse(network=to_proto(await networks.create_network(self._writer, request)))

        return await self._calls.on_leader(context, "CreateNetwork", request, pb.CreateNetworkResponse, local)

    async def RemoveNetwork(self, request: pb.RemoveNetworkRequest, context: Context) -> pb.RemoveNetworkResponse:
        async def local() -> pb.RemoveNetworkResponse:
            return pb.RemoveNetworkResponse(network_id=await networks.remove_network(self._writer, request))

        return await self._calls.on_leader(context, "RemoveNetwork", request, pb.RemoveNetworkResponse, local)

    # ---- shared

    def _node(self, node: Node) -> types_pb2.Node:
        message: types_pb2.Node = to_proto(with_manager_status(node, self._raft))
        return message


def count_tasks(view: Tables, service: Service) -> control_pb2.ServiceTaskCounts:
    """How many of the service's tasks are wanted, run, and have ended well."""
    if service.spec.mode.is_job:
        return count_job_tasks(view, service)
    desired = running = completed = 0
    for task in view.service_tasks(service.id):
        is_wanted = task.desired_state <= TaskState.RUNNING
        desired += is_wanted
        running += is_wanted and task.status.state is TaskState.RUNNING and not _is_lost(view, task)
        completed += task.status.state is TaskState.COMPLETE
    if service.spec.mode is ServiceMode.REPLICATED:
        desired = kept_replicas(service)
    return pb.ServiceTaskCounts(desired=desired, running=running, completed=completed)


def _is_lost(view: Tables, task: Task) -> bool:
    """What ran on a node that is down may run or not: a global service's task stays there, and does not count."""
    node = view.nodes.get(task.node_id)
    return node is not None and node.status.state is NodeState.DOWN


def _everything(network: Network) -> bool:
    return True


def _task_candidates(view: Tables, request: pb.ListTasksRequest) -> dict[str, Task]:
    """Few tasks to look at, where an index helps."""
    if request.service_ids:
        found = (task for service_id in request.service_ids for task in view.service_tasks(service_id))
        return {task.id: task for task in found}
    if request.node_ids:
        return {task.id: task for node_id in request.node_ids for task in view.tasks_on(node_id)}
    return view.tasks


def _task_filter(request: pb.ListTasksRequest) -> Callable[[Task], bool]:
    node_ids = frozenset(request.node_ids)
    states: frozenset[int] = frozenset(request.desired_states)

    def is_wanted(task: Task) -> bool:
        if task.spec.attachment is not None:
            return False  # the place of a plain container: no work of a service
        return (not node_ids or task.node_id in node_ids) and (not states or task.desired_state in states)

    return is_wanted

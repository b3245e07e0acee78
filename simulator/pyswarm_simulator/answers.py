"""What a simulated manager answers: the product's writes on the leader, and reads behind a barrier on every manager.

Questions and answers of the API are protobuf bytes, as on the wire. Passing a question on to the leader is the client's
affair here: it asks another manager.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec.structs import replace

from pyswarm.v1 import attachments_pb2, ca_pb2, control_pb2, secrets_pb2
from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.errors import Forbidden, Unavailable
from pyswarm_common.model import Config, Node, NodeRole, Secret
from pyswarm_common.rpc import Caller, Peer
from pyswarm_manager.api import attachments, jobs, networks, nodes, secrets, services, tasks
from pyswarm_manager.ca import membership
from pyswarm_manager.dispatcher.dispatcher import Dispatcher, NotLeading
from pyswarm_manager.raft.driver import RaftNode
from pyswarm_manager.store.changes import Create, Update
from pyswarm_manager.store.lookup import find_config, find_secret
from pyswarm_manager.store.store import Store
from pyswarm_manager.store.tables import Kind
from pyswarm_manager.writes import Writer

_DECIDING_S = 0.005
"""Between a reading and the writing that follows from it: others may come between."""


class Answers:
    """What a manager answers: writes on the leader only, reads on every manager behind a barrier."""

    def __init__(
        self, writer: Writer, raft: RaftNode, store: Store, dispatcher: Dispatcher, node_of: Callable[[str], str]
    ) -> None:
        self._writer, self._raft, self._store = writer, raft, store
        self._dispatcher, self._node_of = dispatcher, node_of

    def handlers(self) -> dict[str, Callable[[str, Any], Awaitable[Any]]]:
        """By name. Questions and answers of the API are protobuf bytes, as on the wire."""
        return {
            "LocateImage": self._locate_image,
            "JoinRaft": self._join_raft,
            "IsRemoved": self._is_removed,
            "CreateService": self._create_service,
            "UpdateService": self._update_service,
            "RemoveService": self._remove_service,
            "RunService": self._run_service,
            "RestartTask": self._restart_task,
            "RemoveTask": self._remove_task,
            "CreateSecret": self._create_secret,
            "RotateSecret": self._rotate_secret,
            "CreateConfig": self._create_config,
            "RotateConfig": self._rotate_config,
            "UpdateNode": self._update_node,
            "RemoveNode": self._remove_node,
            "CreateNetwork": self._create_network,
            "RemoveNetwork": self._remove_network,
            "Attach": self._attach,
            "AddNode": self._add_node,
            "RenewRole": self._renew_role,
            "Transfer": self._transfer,
            "WriteLabel": self._write_label,
            "SwapLabel": self._swap_label,
            "ReadLabel": self._read_label,
        }

    def _require_leader(self) -> None:
        if not self._raft.is_leader:
            raise NotLeading(self._raft.leader_address)

    async def _locate_image(self, host: str, question: bytes) -> bytes:
        request = pb.LocateImageRequest.FromString(question)
        addresses = self._dispatcher.term.locate_image(request.reference, self._node_of(host))
        return pb.LocateImageResponse(agent_addresses=addresses).SerializeToString()

    async def _join_raft(self, host: str, question: tuple[str, int, str, int]) -> bool:
        """Whether it needs a new raft id."""
        self._require_leader()
        node_id, raft_id, address, last_index = question
        request = ca_pb2.JoinRaftRequest(raft_id=raft_id, address=address, last_index=last_index)
        answer = await membership.join_raft(self._writer, request, Peer(Caller.MANAGER, node_id, ""))
        return answer.needs_new_raft_id

    async def _is_removed(self, host: str, raft_id: int) -> bool:
        """What `Raft.Announce` says of who asks."""
        return self._raft.is_removed(raft_id)

    async def _create_service(self, host: str, question: bytes) -> str:
        self._require_leader()
        return (await services.create_service(self._writer, control_pb2.CreateServiceRequest.FromString(question))).id

    async def _update_service(self, host: str, question: bytes) -> None:
        self._require_leader()
        await services.update_service(self._writer, control_pb2.UpdateServiceRequest.FromString(question))

    async def _remove_service(self, host: str, question: bytes) -> None:
        self._require_leader()
        await services.remove_service(self._writer, control_pb2.RemoveServiceRequest.FromString(question))

    async def _run_service(self, host: str, service_id: str) -> None:
        self._require_leader()
        await jobs.run_service(self._writer, service_id)

    async def _restart_task(self, host: str, question: bytes) -> None:
        self._require_leader()
        await tasks.restart_task(self._writer, control_pb2.RestartTaskRequest.FromString(question).task)

    async def _remove_task(self, host: str, question: bytes) -> None:
        self._require_leader()
        request = control_pb2.RemoveTaskRequest.FromString(question)
        await tasks.remove_task(self._writer, request.task, force=request.force)

    async def _create_secret(self, host: str, question: bytes) -> str:
        self._require_leader()
        request = secrets_pb2.CreateSecretRequest.FromString(question)
        return (await secrets.create(self._writer, Kind.SECRET, Secret, request.spec)).id

    async def _rotate_secret(self, host: str, question: bytes) -> str:
        self._require_leader()
        request = secrets_pb2.RotateSecretRequest.FromString(question)
        return (await secrets.rotate(self._writer, Kind.SECRET, find_secret, request.secret, request.data)).id

    async def _create_config(self, host: str, question: bytes) -> str:
        self._require_leader()
        request = secrets_pb2.CreateConfigRequest.FromString(question)
        return (await secrets.create(self._writer, Kind.CONFIG, Config, request.spec)).id

    async def _rotate_config(self, host: str, question: bytes) -> str:
        self._require_leader()
        request = secrets_pb2.RotateConfigRequest.FromString(question)
        return (await secrets.rotate(self._writer, Kind.CONFIG, find_config, request.config, request.data)).id

    async def _update_node(self, host: str, question: bytes) -> None:
        self._require_leader()
        await nodes.update_node(self._writer, control_pb2.UpdateNodeRequest.FromString(question), may_change_role=True)

    async def _remove_node(self, host: str, question: bytes) -> None:
        self._require_leader()
        await nodes.remove_node(self._writer, control_pb2.RemoveNodeRequest.FromString(question))

    async def _create_network(self, host: str, question: bytes) -> str:
        self._require_leader()
        return (await networks.create_network(self._writer, control_pb2.CreateNetworkRequest.FromString(question))).id

    async def _remove_network(self, host: str, question: bytes) -> None:
        self._require_leader()
        await networks.remove_network(self._writer, control_pb2.RemoveNetworkRequest.FromString(question))

    async def _attach(self, host: str, question: bytes) -> bytes:
        self._require_leader()
        request = attachments_pb2.AttachRequest.FromString(question)
        answer = await attachments.place(self._store, self._writer, request, self._node_of(host))
        return answer.SerializeToString()

    async def _add_node(self, host: str, node: Node) -> None:
        """What issuing a first certificate commits."""
        self._require_leader()
        if node.id not in self._store.view.nodes:
            await self._store.propose([Create(node)])

    async def _renew_role(self, host: str, node_id: str) -> NodeRole:
        """What renewing a certificate commits and answers (`ca.issuing.renew`): a promoted node becomes a manager."""
        self._require_leader()
        node = self._store.view.nodes.get(node_id)
        if node is None:
            raise Forbidden("removed")
        if node.spec.role is NodeRole.WORKER and node.role is NodeRole.MANAGER:
            raise Unavailable("ask again once it has left the managers")
        if node.role is not node.spec.role:
            await self._store.propose([Update(replace(node, role=node.spec.role))])
        return node.spec.role

    async def _transfer(self, host: str, question: None) -> None:
        self._require_leader()
        await self._raft.transfer_leadership()

    # -- registers: a label of a service each --------------------------------------------------------------------------

    async def _swap_label(self, host: str, question: tuple[str, str | None, str]) -> bool:
        """What a client does that reads, decides, and writes with the version it read."""
        self._require_leader()
        service_id, expected, value = question
        await self._raft.read_barrier()
        service = self._store.view.services[service_id]
        if service.spec.labels.get("value") != expected:
            return False
        await asyncio.sleep(_DECIDING_S)
        changed = replace(service, spec=replace(service.spec, labels={"value": value}))
        await self._store.propose([Update(changed)])
        return True

    async def _write_label(self, host: str, question: tuple[str, str]) -> None:
        self._require_leader()
        service_id, value = question
        service = self._store.view.services[service_id]
        changed = replace(service, spec=replace(service.spec, labels={"value": value}))
        await self._store.propose([Update(changed)])

    async def _read_label(self, host: str, service_id: str) -> str | None:
        await self._raft.read_barrier()
        service = self._store.view.services.get(service_id)
        return None if service is None else service.spec.labels.get("value")

"""The audit log: every change that somebody asks for leaves a record at its own index, and nothing secret in it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from manager_harness import Manager, Swarm, asked, make_identity, new_id, service_spec, wire, worker_node
from msgspec.structs import replace
from people import access, make_person, make_token, open_door, stub_of

from pyswarm.v1 import (
    access_pb2,
    backup_pb2,
    backup_pb2_grpc,
    ca_pb2,
    control_pb2,
    control_pb2_grpc,
    exec_pb2,
    exec_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    operator_pb2,
    operator_pb2_grpc,
    plans_pb2,
    plans_pb2_grpc,
    scheduling_pb2,
    scheduling_pb2_grpc,
    secrets_pb2,
    secrets_pb2_grpc,
    security_pb2,
    security_pb2_grpc,
    types_pb2,
)
from pyswarm_common import errors
from pyswarm_common.identity import NodeIdentity, generate_key, make_csr
from pyswarm_common.model import Network, NetworkSpec, NodeRole, NodeState, NodeStatus, Service, Task
from pyswarm_common.model.audit import AuditRecord
from pyswarm_common.model.objects import Credential
from pyswarm_common.model.states import PersonRole
from pyswarm_manager.api.authorisation import CHANGES
from pyswarm_manager.store.apply import Applied, apply
from pyswarm_manager.store.audit import MAX_TARGETS
from pyswarm_manager.store.changes import Change, ChangeSet, Create, SetNodeStatus, delete
from pyswarm_manager.store.digest import digest
from pyswarm_manager.store.encoding import decode_change_set, decode_snapshot, encode_change_set, encode_snapshot
from pyswarm_manager.store.recording import asked_by, asking, describe
from pyswarm_manager.store.tables import MAX_AUDIT_RECORDS, Tables

pb = control_pb2
RENEWALS = {"/pyswarm.v1.CA/RenewCertificate", "/pyswarm.v1.CA/RenewExpired"}
"""They change an object only when a role changes; a certificate that is merely renewed is told to the daemon's log."""
SECRET = "hunter2-is-not-to-be-seen"


class Everything:
    """Calls every changing method once, in an order in which each has something to do."""

    def __init__(self, swarm: Swarm, admin: NodeIdentity, manager: Manager) -> None:
        self._swarm, self._manager = swarm, manager
        stubs = {
            "Control": control_pb2_grpc.ControlStub,
            "Security": security_pb2_grpc.SecurityStub,
            "Backup": backup_pb2_grpc.BackupStub,
            "Operator": operator_pb2_grpc.OperatorStub,
            "Exec": exec_pb2_grpc.ExecStub,
            "Jobs": jobs_pb2_grpc.JobsStub,
            "Plans": plans_pb2_grpc.PlansStub,
            "Scheduling": scheduling_pb2_grpc.SchedulingStub,
            "Secrets": secrets_pb2_grpc.SecretsStub,
        }
        self._stubs = {name: stub_of(swarm, stub, admin, manager) for name, stub in stubs.items()}
        self._stubs["Access"] = access(swarm, manager, admin)

    async def calls(self) -> AsyncIterator[str]:
        """The name of each method, after it was called."""
        for part in (
            self._services,
            self._jobs,
            self._files,
            self._cluster,
            self._nodes,
            self._people,
            self._membership,
            self._leadership,
        ):
            async for method in part():
                yield method

    async def _call(self, name: str, request: Any) -> Any:
        service, _, method = name.partition("/")
        return await asked(getattr(self._stubs[service], method)(request))

    async def _services(self) -> AsyncIterator[str]:
        spec = wire(service_spec("web"))
        spec.task.container.env.append(f"PASSWORD={SECRET}")
        made = (await self._call("Control/CreateService", pb.CreateServiceRequest(spec=spec))).service
        yield "Control/CreateService"
        made.spec.replicas = 2
        update = pb.UpdateServiceRequest(service_id=made.id, version=made.meta.version, spec=made.spec)
        await self._call("Control/UpdateService", update)
        yield "Control/UpdateService"
        task = Task(id=new_id(), service_id=made.id, service_name="web", slot=1)
        await self._swarm.create(task)
        await self._call("Control/RestartTask", pb.RestartTaskRequest(task="web.1"))
        yield "Control/RestartTask"
        await self._call("Control/RemoveTask", pb.RemoveTaskRequest(task=task.id))
        yield "Control/RemoveTask"
        await self._call("Scheduling/Rebalance", scheduling_pb2.RebalanceRequest(services=["web"]))
        yield "Scheduling/Rebalance"
        removal = plans_pb2.PlannedRequest(remove_service=pb.RemoveServiceRequest(service="web"))
        told = await self._call("Plans/PlanChange", plans_pb2.PlanChangeRequest(requests=[removal]))
        plan = plans_pb2.Plan(
            format=1, cluster_id=told.cluster_id, index=told.forecast.index, outcome=told.forecast.outcome
        )
        plan.requests.append(removal)
        await self._call("Plans/ApplyPlan", plans_pb2.ApplyPlanRequest(plan=plan))
        yield "Plans/ApplyPlan"
        await self._call("Control/CreateService", pb.CreateServiceRequest(spec=wire(service_spec("web"))))
        yield "Control/CreateService"
        await self._call("Control/RemoveService", pb.RemoveServiceRequest(service="web"))
        yield "Control/RemoveService"
        await self._call("Control/CreateNetwork", pb.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name="net")))
        yield "Control/CreateNetwork"
        await self._call("Control/RemoveNetwork", pb.RemoveNetworkRequest(network="net"))
        yield "Control/RemoveNetwork"

    async def _jobs(self) -> AsyncIterator[str]:
        spec = wire(service_spec("job"))
        spec.mode = types_pb2.SERVICE_MODE_REPLICATED_JOB
        spec.ClearField("replicas")
        spec.task.restart.condition = types_pb2.RESTART_CONDITION_NONE
        await self._call("Control/CreateService", pb.CreateServiceRequest(spec=spec))
        yield "Control/CreateService"
        await self._call("Jobs/RunService", jobs_pb2.RunServiceRequest(service="job"))
        yield "Jobs/RunService"

    async def _files(self) -> AsyncIterator[str]:
        for kind, noun in (("Secret", "secret"), ("Config", "config")):

            async def ask(verb: str, kind: str = kind, **fields: Any) -> Any:
                request = getattr(secrets_pb2, f"{verb}{kind}Request")(**fields)
                return await self._call(f"Secrets/{verb}{kind}", request)

            spec = types_pb2.FileSpec(name="file", data=SECRET.encode())
            made = getattr(await ask("Create", spec=spec), noun)
            yield f"Secrets/Create{kind}"
            spec = types_pb2.FileSpec(name="file", labels={"a": "b"})
            await ask("Update", **{f"{noun}_id": made.id}, version=made.meta.version, spec=spec)
            yield f"Secrets/Update{kind}"
            await ask("Rotate", **{noun: "file"}, data=f"{SECRET} again".encode())
            yield f"Secrets/Rotate{kind}"
            await ask("Remove", **{noun: "file"})
            yield f"Secrets/Remove{kind}"

    async def _cluster(self) -> AsyncIterator[str]:
        cluster = (await self._call("Control/GetCluster", pb.GetClusterRequest())).cluster
        cluster.spec.autolock = True
        request = pb.UpdateClusterRequest(version=cluster.meta.version, spec=cluster.spec, rotate_worker_token=True)
        await self._call("Control/UpdateCluster", request)
        yield "Control/UpdateCluster"
        await self._call("Security/RotateUnlockKey", security_pb2.RotateUnlockKeyRequest())
        yield "Security/RotateUnlockKey"
        await self._call("Security/RotateEncryptionKey", security_pb2.RotateEncryptionKeyRequest())
        yield "Security/RotateEncryptionKey"
        await self._call("Backup/GetBackupKey", backup_pb2.GetBackupKeyRequest(rotate=True))
        yield "Backup/GetBackupKey"
        made = await self._call("Security/CreateJoinToken", security_pb2.CreateJoinTokenRequest(label="batch"))
        yield "Security/CreateJoinToken"
        remove = security_pb2.RemoveJoinTokenRequest(id=made.join_token.id)
        await self._call("Security/RemoveJoinToken", remove)
        yield "Security/RemoveJoinToken"

    async def _nodes(self) -> AsyncIterator[str]:
        gone = worker_node(new_id(), "gone", status=NodeStatus(state=NodeState.DOWN))
        await self._swarm.create(gone)
        found = (await self._call("Control/GetNode", pb.GetNodeRequest(node="gone"))).node
        found.spec.labels["zone"] = "a"
        update = pb.UpdateNodeRequest(node_id=gone.id, version=found.meta.version, spec=found.spec)
        await self._call("Control/UpdateNode", update)
        yield "Control/UpdateNode"
        await self._call("Control/RemoveNode", pb.RemoveNodeRequest(node="gone"))
        yield "Control/RemoveNode"

    async def _people(self) -> AsyncIterator[str]:
        role = access_pb2.PERSON_ROLE_VIEWER
        token = (await self._call("Access/CreateToken", access_pb2.CreateTokenRequest(name="t", role=role))).token
        yield "Access/CreateToken"
        async with open_door(self._manager) as door:
            exchange = access_pb2.ExchangeTokenRequest(csr=make_csr(generate_key()))
            assert (await door.call("Access/ExchangeToken", exchange, token))[0] == 200
        yield "Access/ExchangeToken"
        await self._call("Access/RemoveToken", access_pb2.RemoveTokenRequest(token="t"))
        yield "Access/RemoveToken"
        create = access_pb2.CreateClientCertificateRequest(name="c", role=role, csr=make_csr(generate_key()))
        await self._call("Access/CreateClientCertificate", create)
        yield "Access/CreateClientCertificate"
        remove = access_pb2.RemoveClientCertificateRequest(certificate="c")
        await self._call("Access/RemoveClientCertificate", remove)
        yield "Access/RemoveClientCertificate"

    async def _membership(self) -> AsyncIterator[str]:
        token = self._swarm.leader.store.view.cluster
        assert token is not None
        issue = ca_pb2.IssueCertificateRequest(
            csr=make_csr(generate_key()), token=token.join_tokens.worker, hostname="new"
        )
        hop = (("pyswarm-forwarded-by", self._manager.node_id), ("pyswarm-caller", "anyone"))
        await asked(self._swarm.ca(self._swarm.leader).IssueCertificate(issue, metadata=hop))
        yield "CA/IssueCertificate"
        node = worker_node(new_id(), "m4", role=NodeRole.MANAGER)
        await self._swarm.create(replace(node, spec=replace(node.spec, role=NodeRole.MANAGER)))
        identity = make_identity(self._swarm.root, node.id, NodeRole.MANAGER)
        join = ca_pb2.JoinRaftRequest(raft_id=77, address="127.0.0.1:9")
        await asked(self._swarm.ca(self._swarm.leader, identity).JoinRaft(join))
        yield "CA/JoinRaft"
        await asked(self._swarm.ca(self._swarm.leader, identity).Leave(ca_pb2.LeaveRequest(force=True)))
        yield "CA/Leave"

    async def _leadership(self) -> AsyncIterator[str]:
        await self._call("Security/RotateRoot", security_pb2.RotateRootRequest())
        yield "Security/RotateRoot"
        await self._call("Exec/Announce", exec_pb2.AnnounceRequest(task_id=new_id(), action="exec sh"))
        yield "Exec/Announce"
        await self._call("Operator/TransferLeadership", operator_pb2.TransferLeadershipRequest())
        yield "Operator/TransferLeadership"


async def test_every_change_that_somebody_asks_for_is_recorded(swarm3: Swarm) -> None:
    admin = await make_person(swarm3, PersonRole.ADMIN, "root-of-all")
    follower = swarm3.followers[0]
    done: set[str] = set()
    before = follower.store.view.audit[-1].index
    async for method in Everything(swarm3, admin, follower).calls():
        await swarm3.wait(lambda before=before: follower.store.view.audit[-1].index > before)  # type: ignore[misc]
        news = [record for record in follower.store.view.audit if record.index > before]
        assert {record.method for record in news} == {method}, method
        _check_record(news[-1], follower)
        before = news[-1].index
        done.add(f"/pyswarm.v1.{method}")
    assert done == CHANGES - RENEWALS
    await swarm3.wait(lambda: any(manager.raft.is_leader for manager in swarm3.managers))
    await swarm3.settle()
    logs = [list(manager.store.view.audit) for manager in swarm3.managers]
    assert logs[0] == logs[1] == logs[2]
    assert SECRET not in repr(logs[0])


def _check_record(record: AuditRecord, asked_manager: Manager) -> None:
    service = record.method.partition("/")[0]
    assert record.source == "127.0.0.1" or service == "CA"
    assert record.time > 0
    if service != "CA":
        is_token = record.method == "Access/ExchangeToken"
        expected = ("token", "t", "viewer") if is_token else ("certificate", "root-of-all", "admin")
        assert (record.actor_kind, record.actor, record.role) == expected
        assert record.manager_id == asked_manager.node_id
        assert record.credential_id


async def test_a_record_is_at_the_index_of_its_change(swarm: Swarm) -> None:
    made = await swarm.control().CreateService(pb.CreateServiceRequest(spec=wire(service_spec("web"))))
    record = swarm.leader.store.view.audit[-1]
    assert record.index == made.service.meta.version
    (target,) = record.targets
    assert (target.kind, target.id, target.name, target.action) == ("service", made.service.id, "web", "create")


async def test_what_is_refused_leaves_no_record(swarm: Swarm) -> None:
    before = list(swarm.leader.store.view.audit)
    with pytest.raises(errors.NotFound):
        await asked(swarm.control().RemoveService(pb.RemoveServiceRequest(service="nobody")))
    viewer = await make_person(swarm, PersonRole.VIEWER)
    stub = stub_of(swarm, control_pb2_grpc.ControlStub, viewer)
    with pytest.raises(errors.Forbidden):
        await asked(stub.CreateService(pb.CreateServiceRequest(spec=wire(service_spec("web")))))
    assert [record.method for record in swarm.leader.store.view.audit][len(before) :] == [
        "Access/CreateClientCertificate"
    ]


async def test_what_the_managers_do_by_themselves_is_no_ones_change(swarm: Swarm) -> None:
    store = swarm.leader.store
    node = worker_node(new_id(), "w1")
    await swarm.control().CreateService(pb.CreateServiceRequest(spec=wire(service_spec("web"))))
    records = len(store.view.audit)
    await store.propose([Create(node)])
    await store.propose([SetNodeStatus(node.id, NodeStatus(state=NodeState.DOWN))])
    assert len(store.view.audit) == records


async def test_the_log_survives_its_leader(swarm3: Swarm) -> None:
    await swarm3.control().CreateNetwork(pb.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name="net")))
    await swarm3.settle()
    kept = list(swarm3.leader.store.view.audit)
    await swarm3.kill(swarm3.leader)
    await swarm3.wait(lambda: any(manager.raft.is_leader for manager in swarm3.managers))
    listed = await access(swarm3).ListAuditRecords(access_pb2.ListAuditRecordsRequest())
    assert [record.index for record in listed.records] == [record.index for record in kept]
    assert listed.records[-1].targets[0].name == "net"
    await swarm3.control().RemoveNetwork(pb.RemoveNetworkRequest(network="net"))
    assert swarm3.leader.store.view.audit[-1].method == "Control/RemoveNetwork"


# ---------------------------------------------------------------- questions


async def several(swarm: Swarm) -> list[AuditRecord]:
    for name in ("net-a", "net-b"):
        await swarm.control().CreateNetwork(pb.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name=name)))
    operator = await make_person(swarm, PersonRole.OPERATOR, "bob")
    stub = stub_of(swarm, control_pb2_grpc.ControlStub, operator)
    await stub.CreateService(pb.CreateServiceRequest(spec=wire(service_spec("web"))))
    await stub.RemoveNetwork(pb.RemoveNetworkRequest(network="net-a"))
    return list(swarm.leader.store.view.audit)


QUESTIONS: dict[str, tuple[Callable[[list[AuditRecord]], Any], list[int]]] = {
    "everything": (lambda r: access_pb2.AuditFilter(), [0, 1, 2, 3, 4]),
    "actor": (lambda r: access_pb2.AuditFilter(actors=["bob"]), [3, 4]),
    "credential": (lambda r: access_pb2.AuditFilter(actors=[r[3].credential_id]), [3, 4]),
    "kind of actor": (lambda r: access_pb2.AuditFilter(actors=["node"]), [0, 1, 2]),
    "method": (lambda r: access_pb2.AuditFilter(methods=["CreateNetwork", "Control/RemoveNetwork"]), [0, 1, 4]),
    "kind": (lambda r: access_pb2.AuditFilter(kinds=["service", "credential"]), [2, 3]),
    "name": (lambda r: access_pb2.AuditFilter(objects=["net-a"]), [0, 4]),
    "id": (lambda r: access_pb2.AuditFilter(objects=[r[1].targets[0].id[:12]]), [1]),
    "two": (lambda r: access_pb2.AuditFilter(kinds=["network"], actors=["bob"]), [4]),
}


async def test_questions_to_the_log(swarm: Swarm) -> None:
    records = await several(swarm)
    viewer = await make_person(swarm, PersonRole.VIEWER)
    stub = access(swarm, identity=viewer)
    everything = [*records, swarm.leader.store.view.audit[-1]]
    for name, (make, expected) in QUESTIONS.items():
        found = await stub.ListAuditRecords(access_pb2.ListAuditRecordsRequest(filter=make(everything)))
        indexes = [record.index for record in found.records if record.index <= records[-1].index]
        assert indexes == [records[position].index for position in expected], name


async def test_pages_and_times(swarm: Swarm) -> None:
    records = await several(swarm)
    request, found = access_pb2.ListAuditRecordsRequest(page_size=2), []
    while True:
        page = await access(swarm).ListAuditRecords(request)
        found += [record.index for record in page.records]
        if not page.more:
            break
        request.after_index = found[-1]
    assert found == [record.index for record in records]
    late = access_pb2.ListAuditRecordsRequest()
    late.filter.since.FromSeconds(int(time.time()) + 10)
    assert not (await access(swarm).ListAuditRecords(late)).records
    early = access_pb2.ListAuditRecordsRequest()
    early.filter.until.FromSeconds(int(time.time()) - 1000)
    assert not (await access(swarm).ListAuditRecords(early)).records


async def test_a_watch_of_the_log(swarm: Swarm) -> None:
    await several(swarm)
    request = access_pb2.WatchAuditRecordsRequest(filter=access_pb2.AuditFilter(kinds=["network"]))
    watch: Any = access(swarm).WatchAuditRecords(request)
    assert not (await watch.read()).records
    await make_token(swarm, PersonRole.VIEWER)
    await swarm.control().CreateNetwork(pb.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name="late")))
    (record,) = (await watch.read()).records
    assert record.targets[0].name == "late"
    watch.cancel()


# ---------------------------------------------------------------- apply


def submit(tables: Tables, *changes: Change, audit: AuditRecord | None = None) -> Any:
    data = encode_change_set(ChangeSet(changes, 1.0, audit))
    return apply(tables, tables.index + 1, decode_change_set(data))


ASKED = AuditRecord(actor_kind="local", actor="root", method="Control/CreateNetwork")


def test_the_log_is_a_ring_that_every_member_cuts_alike() -> None:
    first, second = Tables(), Tables()
    for tables in (first, second):
        for _ in range(MAX_AUDIT_RECORDS + 5):
            submit(tables, audit=ASKED)
    assert len(first.audit) == MAX_AUDIT_RECORDS
    assert first.audit[0].index == 6
    assert digest(first) == digest(second)
    restored = decode_snapshot(encode_snapshot(first))
    assert restored == first
    submit(restored, audit=ASKED)
    submit(first, audit=ASKED)
    assert digest(restored) == digest(first)


def test_the_digest_covers_the_log() -> None:
    first, second = Tables(), Tables()
    submit(first, audit=ASKED)
    submit(second, audit=replace(ASKED, actor="somebody else"))
    assert digest(first) != digest(second)


def test_a_refused_change_set_leaves_no_record() -> None:
    tables = Tables()
    network = Network(id="n", spec=NetworkSpec(name="net"))
    submit(tables, Create(network), audit=ASKED)
    submit(tables, Create(network), audit=ASKED)
    assert [record.index for record in tables.audit] == [1]


def test_tasks_that_go_along_are_not_listed_and_many_objects_are_counted() -> None:
    tables = Tables()
    web = Service(id="s", spec=service_spec("web"))
    submit(tables, Create(web), Create(Task(id="t", service_id="s", service_name="web", slot=1, spec=web.spec.task)))
    result = submit(tables, delete(tables.tasks["t"]), delete(tables.services["s"]), audit=ASKED)
    assert isinstance(result, Applied)
    assert [target.kind for target in tables.audit[-1].targets] == ["service"]
    many = [Create(Network(id=f"n{number}", spec=NetworkSpec(name=f"n{number}"))) for number in range(20)]
    submit(tables, *many, audit=ASKED)
    assert len(tables.audit[-1].targets) == MAX_TARGETS
    assert tables.audit[-1].detail == "and 4 more objects"


def test_an_older_members_change_sets_and_snapshots_are_read() -> None:
    data = encode_change_set(ChangeSet((Create(Network(id="n", spec=NetworkSpec(name="net"))),), 1.0))
    assert b"audit" not in data
    assert decode_change_set(data).audit is None
    assert decode_snapshot(encode_snapshot(Tables(index=3))).audit == deque()


def test_a_record_says_what_is_done_only_while_a_call_is_answered() -> None:
    assert asked_by() is None
    with asking(ASKED):
        describe("x" * 500)
        record = asked_by()
        assert record is not None
        assert record.detail == "x" * 200
    assert asked_by() is None
    describe("nobody")
    assert asked_by() is None


def test_a_credentials_hash_is_in_no_record() -> None:
    tables = Tables()
    submit(tables, Create(Credential(id="c", name="ci", digest=b"\x01hash")), audit=ASKED)
    (target,) = tables.audit[-1].targets
    assert (target.kind, target.name) == ("credential", "ci")
    assert "hash" not in repr(tables.audit[-1])

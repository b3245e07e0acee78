"""The table of who may call what: complete for every service there is, and as narrow as it says."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import pyswarm.v1
from pyswarm.v1 import agent_pb2, ca_pb2, control_pb2, localnet_pb2, node_pb2, plain_pb2, raft_pb2
from pyswarm_common.rpc import Caller
from pyswarm_manager.api.authorisation import CHANGES, TABLE

LOCAL, MANAGER, WORKER = Caller.LOCAL, Caller.MANAGER, Caller.WORKER
VIEWER, OPERATOR, ADMIN = Caller.VIEWER, Caller.OPERATOR, Caller.ADMIN
PEOPLE = (VIEWER, OPERATOR, ADMIN)
READS = ("Get", "List", "Watch", "Read", "Check", "Inspect", "Explain", "Plan", "Simulate")
NOT_PEOPLES_CHANGES = {
    # The node's own, of which nothing is kept unless it changes an object.
    "/pyswarm.v1.Dispatcher/Session",
    "/pyswarm.v1.Dispatcher/LocateImage",
    "/pyswarm.v1.Attachments/Attach",
    # Raft's own, and between a machine's daemon and its manager.
    "/pyswarm.v1.Raft/Exchange",
    "/pyswarm.v1.Raft/InstallSnapshot",
    "/pyswarm.v1.Raft/Announce",
    "/pyswarm.v1.Locking/FollowUnlockKey",
    "/pyswarm.v1.Locking/SealKeyring",
    # Reads of everything.
    "/pyswarm.v1.Backup/CreateBackup",
}


def methods_of(*files: FileDescriptor) -> set[str]:
    return {
        f"/{service.full_name}/{method.name}"
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }


def every_file() -> list[FileDescriptor]:
    """Every .proto file of ours that is there: nobody has to remember a new one here."""
    names = (module.name for module in pkgutil.iter_modules(pyswarm.v1.__path__))
    modules = (importlib.import_module(f"pyswarm.v1.{name}") for name in names if name.endswith("_pb2"))
    return [module.DESCRIPTOR for module in modules]


def called_by(caller: Caller) -> set[str]:
    return {method for method, callers in TABLE.items() if caller in callers}


ELSEWHERE = methods_of(agent_pb2.DESCRIPTOR, localnet_pb2.DESCRIPTOR, node_pb2.DESCRIPTOR, plain_pb2.DESCRIPTOR)
"""What agents and daemons serve, each with a table of its own."""
FILES = {
    f"/pyswarm.v1.Secrets/{verb}{kind}"
    for verb in ("Create", "Update", "Rotate", "Remove")
    for kind in ("Secret", "Config")
}
ENTERING = {f"/pyswarm.v1.Exec/{name}" for name in ("Run", "CopyFrom", "CopyTo")}
LOOKING = {"/pyswarm.v1.NetworkChecks/VerifyNetworks", "/pyswarm.v1.NetworkChecks/TraceNetwork"}
"""At kernels: what they repair is what the cluster says already."""
SERVED = methods_of(*every_file()) - ELSEWHERE


@pytest.mark.parametrize("method", sorted(SERVED | methods_of(health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)))
def test_every_method_that_a_manager_serves_is_in_the_table(method: str) -> None:
    assert TABLE[method]


def test_nothing_else_is_in_the_table() -> None:
    assert {method for method in TABLE if method.startswith("/pyswarm.")} == SERVED


@pytest.mark.parametrize("method", sorted(SERVED - NOT_PEOPLES_CHANGES))
def test_what_does_not_only_read_is_recorded(method: str) -> None:
    name = method.rpartition("/")[2]
    if method == "/pyswarm.v1.Backup/GetBackupKey":  # may rotate it
        assert method in CHANGES
    elif method in LOOKING:
        assert method not in CHANGES
    elif method in ENTERING:  # each announces itself to the leader, which records that
        assert method not in CHANGES
        assert "/pyswarm.v1.Exec/Announce" in CHANGES
    else:
        assert (method in CHANGES) is not name.startswith(READS)


def test_what_a_worker_may_call() -> None:
    assert called_by(WORKER) == {
        "/pyswarm.v1.Dispatcher/Session",
        "/pyswarm.v1.Dispatcher/LocateImage",
        "/pyswarm.v1.Attachments/Attach",
        "/pyswarm.v1.CA/GetRootCertificate",
        "/pyswarm.v1.CA/RenewCertificate",
        "/pyswarm.v1.CA/Leave",
    }


def test_a_viewer_changes_nothing_but_its_own_proof() -> None:
    assert called_by(VIEWER) & CHANGES == {"/pyswarm.v1.Access/ExchangeToken"}


def test_what_an_operator_may_change() -> None:
    assert (called_by(OPERATOR) - called_by(VIEWER)) == {
        f"/pyswarm.v1.Control/{name}"
        for name in (
            "CreateService",
            "UpdateService",
            "RemoveService",
            "RestartTask",
            "RemoveTask",
            "CreateNetwork",
            "RemoveNetwork",
            "UpdateNode",
        )
    } | {
        "/pyswarm.v1.Jobs/RunService",
        "/pyswarm.v1.Scheduling/Rebalance",
        "/pyswarm.v1.Plans/ApplyPlan",
    } | ENTERING | LOOKING | {"/pyswarm.v1.Exec/Announce"} | FILES


def test_each_role_may_do_what_the_one_before_it_may() -> None:
    assert called_by(VIEWER) < called_by(OPERATOR) < called_by(ADMIN)
    assert called_by(ADMIN) <= called_by(LOCAL)


@pytest.mark.parametrize(
    "method",
    [
        "/pyswarm.v1.Access/CreateToken",
        "/pyswarm.v1.Access/ListTokens",
        "/pyswarm.v1.Access/CreateClientCertificate",
        "/pyswarm.v1.Backup/CreateBackup",
        "/pyswarm.v1.Backup/GetBackupKey",
        "/pyswarm.v1.Control/UpdateCluster",
        "/pyswarm.v1.Control/RemoveNode",
        "/pyswarm.v1.Operator/TransferLeadership",
        "/pyswarm.v1.Security/CreateJoinToken",
        "/pyswarm.v1.Security/ListJoinTokens",
        "/pyswarm.v1.Security/GetUnlockKey",
        "/pyswarm.v1.Security/RotateRoot",
    ],
)
def test_what_only_an_admin_may(method: str) -> None:
    assert TABLE[method] == {LOCAL, MANAGER, ADMIN}


@pytest.mark.parametrize("method", sorted(methods_of(raft_pb2.DESCRIPTOR, ca_pb2.DESCRIPTOR)))
def test_no_person_acts_as_a_node(method: str) -> None:
    is_public = method == "/pyswarm.v1.CA/GetRootCertificate"
    assert is_public or not TABLE[method].intersection((*PEOPLE, LOCAL))


def test_nothing_is_open_to_strangers() -> None:
    assert not called_by(Caller.ANYONE)


@pytest.mark.parametrize("method", [*sorted(methods_of(raft_pb2.DESCRIPTOR)), "/pyswarm.v1.CA/JoinRaft"])
def test_only_managers_take_part_in_raft(method: str) -> None:
    assert TABLE[method] == {MANAGER}


@pytest.mark.parametrize("method", sorted(methods_of(control_pb2.DESCRIPTOR)))
def test_the_local_socket_has_the_whole_api(method: str) -> None:
    assert {LOCAL, MANAGER, ADMIN} <= TABLE[method]

"""The table of who may call what: complete, and as narrow as it says."""

from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from pyswarm.v1 import ca_pb2, control_pb2, dispatcher_pb2, logs_pb2, raft_pb2, watch_pb2
from pyswarm.v1 import health_pb2 as manager_health_pb2
from pyswarm_common.rpc import Caller
from pyswarm_manager.api.authorisation import TABLE

SERVED = (control_pb2, watch_pb2, logs_pb2, manager_health_pb2, ca_pb2, raft_pb2, dispatcher_pb2)
OTHERS = (health_pb2, reflection_pb2)


def methods_of(*modules: object) -> set[str]:
    return {
        f"/{service.full_name}/{method.name}"
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()  # type: ignore[attr-defined]
        for method in service.methods
    }


def test_every_method_that_a_manager_serves_is_in_the_table() -> None:
    assert methods_of(*SERVED) <= set(TABLE)
    assert methods_of(*OTHERS) <= set(TABLE)


def test_nothing_else_is_in_the_table() -> None:
    ours = {method for method in TABLE if method.startswith("/pyswarm.")}
    assert ours == methods_of(*SERVED)


def test_what_a_worker_may_call() -> None:
    assert {method for method, callers in TABLE.items() if Caller.WORKER in callers} == {
        "/pyswarm.v1.Dispatcher/Session",
        "/pyswarm.v1.Dispatcher/LocateImage",
        "/pyswarm.v1.CA/GetRootCertificate",
        "/pyswarm.v1.CA/RenewCertificate",
        "/pyswarm.v1.CA/Leave",
    }


def test_nothing_is_open_to_strangers() -> None:
    assert not [method for method, callers in TABLE.items() if Caller.ANYONE in callers]


@pytest.mark.parametrize("method", [*sorted(methods_of(raft_pb2)), "/pyswarm.v1.CA/JoinRaft"])
def test_only_managers_take_part_in_raft(method: str) -> None:
    assert TABLE[method] == frozenset({Caller.MANAGER})


@pytest.mark.parametrize("method", sorted(methods_of(control_pb2, watch_pb2, logs_pb2, manager_health_pb2)))
def test_the_local_socket_and_managers_have_the_whole_api(method: str) -> None:
    assert TABLE[method] == frozenset({Caller.LOCAL, Caller.MANAGER})

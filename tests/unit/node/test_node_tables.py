"""The daemon's and the agent's own tables: every method of theirs is there, and people are in none of them."""

from __future__ import annotations

import pytest

from pyswarm.v1 import agent_pb2, node_pb2, plain_pb2
from pyswarm_common.rpc import Caller
from pyswarm_manager.api.authorisation import TABLE
from pyswarm_node.daemon import OWN_TABLE
from pyswarm_node.forward import FORWARD_TABLE, FORWARDED
from pyswarm_node.plain_servicer import PLAIN_TABLE
from pyswarm_worker.server import AGENT_TABLE

ONLY_WITHIN = {
    # Between a machine's daemon and its manager.
    "/pyswarm.v1.Locking/FollowUnlockKey",
    "/pyswarm.v1.Locking/SealKeyring",
}


def methods_of(module: object) -> set[str]:
    return {
        f"/{service.full_name}/{method.name}"
        for service in module.DESCRIPTOR.services_by_name.values()  # type: ignore[attr-defined]
        for method in service.methods
    }


def test_every_method_of_the_daemon_is_in_its_table() -> None:
    assert set(OWN_TABLE) == methods_of(node_pb2)
    assert set(OWN_TABLE.values()) == {frozenset({Caller.LOCAL})}


def test_plain_containers_are_for_the_local_socket() -> None:
    assert set(PLAIN_TABLE) == methods_of(plain_pb2)
    assert set(PLAIN_TABLE.values()) == {frozenset({Caller.LOCAL})}


def test_every_method_of_the_agent_is_in_its_table() -> None:
    assert set(AGENT_TABLE) == methods_of(agent_pb2)
    assert not any(
        caller.is_person or caller is Caller.ANYONE for callers in AGENT_TABLE.values() for caller in callers
    )


def test_the_local_socket_passes_on_the_whole_api() -> None:
    open_to_local = {
        method for method, callers in TABLE.items() if Caller.LOCAL in callers and method.startswith("/pyswarm.")
    }
    assert open_to_local - ONLY_WITHIN <= set(FORWARDED)


@pytest.mark.parametrize("method", sorted(FORWARD_TABLE))
def test_what_is_passed_on_is_only_for_the_local_socket(method: str) -> None:
    assert FORWARD_TABLE[method] == frozenset({Caller.LOCAL})

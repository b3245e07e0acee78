"""Which address a node has when those of its machine change."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.resolving import is_named, resolved
from pyswarm_manager.config import ManagerConfig
from pyswarm_node.addresses import Interface
from pyswarm_node.local_manager import LocalManager
from pyswarm_node.machine_lock import MachineLock
from pyswarm_node.moving import address_changes, followed
from pyswarm_node.paths import NodeRecord, Options

OLD, NEW, OTHER = "192.0.2.1", "192.0.2.2", "198.51.100.1"


def record(**changes: Any) -> NodeRecord:
    return NodeRecord(**{"node_id": "n", "cluster_id": "c", "address": OLD, "data_path_address": OLD, **changes})


def on(*addresses: str, name: str = "eth0") -> Interface:
    return Interface(name, addresses)


def test_a_named_interface_is_followed() -> None:
    now = followed(record(advertise="eth0:2399", manager_port=2399), (on(NEW), on(OTHER, name="eth1")), OTHER)
    assert (now.address, now.manager_port, now.data_path_address) == (NEW, 2399, NEW)


def test_an_interface_that_still_has_the_address_changes_nothing() -> None:
    before = record(advertise="eth0")
    assert followed(before, (on(NEW, OLD),), None) == before


@pytest.mark.parametrize(
    ("advertise", "interfaces", "towards", "expected"),
    [
        ("", (on(OLD), on(OTHER, name="eth1")), OTHER, OLD),
        ("", (on(NEW), on(OTHER, name="eth1")), OTHER, OTHER),
        ("", (on(NEW),), None, NEW),
        (OLD, (on(OLD, NEW),), NEW, OLD),
        (OLD, (on(NEW),), None, NEW),
        (f"{OLD}:2377", (on(NEW),), NEW, NEW),
    ],
)
def test_an_address_is_kept_as_long_as_the_machine_has_it(
    advertise: str, interfaces: tuple[Interface, ...], towards: str | None, expected: str
) -> None:
    assert followed(record(advertise=advertise), interfaces, towards).address == expected


def test_a_machine_that_moves_to_ipv6_listens_there_unless_it_was_told_where() -> None:
    to_ipv6 = (on("2001:db8::1"),)
    now = followed(record(listen_address="0.0.0.0:3000"), to_ipv6, None)
    assert (now.address, now.data_path_address, now.listen_address) == ("2001:db8::1", "2001:db8::1", "[::]:3000")
    told = record(listen=f"{OLD}:3000", listen_address=f"{OLD}:3000")
    assert followed(told, to_ipv6, None).listen_address == f"{OLD}:3000"


def test_an_address_is_the_same_however_it_is_written() -> None:
    before = record(advertise="2001:DB8:0::1", address="2001:db8::1", data_path_address="2001:db8::1")
    assert followed(before, (on("2001:db8::1", "2001:db8::2"),), None) == before


def test_an_address_that_was_given_comes_back() -> None:
    meanwhile = followed(record(advertise=OLD), (on(NEW),), None)
    assert followed(meanwhile, (on(OLD),), None).address == OLD


def test_with_a_data_path_of_its_own_the_advertised_address_may_be_elsewhere() -> None:
    now = followed(record(advertise="203.0.113.9", data_path="eth0"), (on(NEW),), None)
    assert (now.address, now.data_path_address) == ("203.0.113.9", NEW)


@pytest.mark.parametrize(
    ("advertise", "interfaces"), [("eth9", (on(NEW),)), ("", ()), ("", (on(NEW), on(OTHER, name="eth1")))]
)
def test_what_cannot_be_told_is_said(advertise: str, interfaces: tuple[Interface, ...]) -> None:
    with pytest.raises(InvalidArgument):
        followed(record(advertise=advertise), interfaces, None)


def test_the_listening_address_follows_its_interface() -> None:
    now = followed(record(advertise="eth0", listen="eth0:2377", listen_address=f"{OLD}:2377"), (on(NEW),), None)
    assert now.listen_address == f"{NEW}:2377"


async def test_the_manager_is_given_the_new_address_and_keeps_what_it_has(tmp_path: Path) -> None:
    options = Options(state_dir=tmp_path, run_dir=tmp_path)
    manager = LocalManager(options, MachineLock(options.certificates))
    before = record(seeds=("managers.test:2377",))
    await manager.readdress(before)
    assert not manager.has_state
    manager.configure(before, 7, ("192.0.2.9:2377",))
    await manager.readdress(msgspec.structs.replace(before, address=NEW))
    config = ManagerConfig.load(options.manager)
    assert (config.raft_id, config.advertise_address, config.join_addresses) == (7, f"{NEW}:2377", ("192.0.2.9:2377",))
    assert config.seeds == ("managers.test:2377",)


async def test_watching_addresses_ends_with_its_task() -> None:
    async def watch() -> None:
        async for _ in address_changes():
            pass

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_names_are_resolved_and_addresses_are_left_alone() -> None:
    assert await resolved("192.0.2.1:2377") == ["192.0.2.1:2377"]
    assert not is_named("[2001:db8::1]:2377")
    assert is_named("managers.test:2377")
    assert "127.0.0.1:2377" in await resolved("localhost:2377")
    assert await resolved(f"{'x' * 300}:2377") == []

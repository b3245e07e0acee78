"""What is written of published ports follows from every sandbox and port; ways out have IPv6 on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyswarm_overlay import Attachment, IngressBackend, IngressPort, NetworkTable, OverlayConfig, Sandbox
from pyswarm_overlay.core import nft_attributes, nft_wire, subnets
from pyswarm_overlay.core.tables import TableState
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.network import Network
from pyswarm_overlay.publisher import Publisher
from pyswarm_overlay.records import IngressRecord

HERE = "192.0.2.1"


@dataclass
class FakeGround:
    """A host whose table is kept in a list."""

    config: OverlayConfig
    gateway_subnet: str = "172.18.0.0/16"
    gateway_subnet6: str | None = None
    written: list[Any] = field(default_factory=list)
    netfilter: object = None

    @property
    def threads(self) -> FakeGround:
        return self

    @property
    def nft(self) -> SimpleNamespace:
        return SimpleNamespace(run=self.written.append)

    async def run(self, function: Callable[[], object]) -> object:
        return function()


def network(version: int) -> Network:
    table = NetworkTable(
        network_id="ing", name="ing", vni=1, subnets=("10.9.0.0/24",), version=version, ingress=True, endpoints=()
    )
    return Network(TableState.of(table))


def box(number: int) -> Sandbox:
    attachment = Attachment(network_id="ing", endpoint_id=f"t{number}", addresses=(f"10.9.0.{number + 10}/24",))
    return Sandbox(sandbox_id=f"c{number}", attachments=(attachment,))


def port(backends: frozenset[int]) -> IngressPort:
    """SCTP, of which no socket is bound here."""
    behind = tuple(
        IngressBackend(endpoint_id=f"t{n}", ingress_addresses=(f"10.9.0.{n + 10}",), node_address=HERE)
        for n in sorted(backends)
    )
    return IngressPort(protocol="sctp", published_port=9000, target_port=80, service_id="s", backends=behind)


NUMBERS = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.just("open"), NUMBERS),
    st.tuples(st.just("release"), NUMBERS),
    st.tuples(st.just("ports"), st.frozensets(NUMBERS)),
    st.tuples(st.just("table"), NUMBERS),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(steps=st.lists(STEPS, max_size=12))
def test_the_table_is_always_what_it_should_be(
    tmp_path: Path, steps: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is passed over as having nothing to do with ports."""
    monkeypatch.setattr("pyswarm_overlay.publisher.flows.end", lambda *_: [])
    monkeypatch.setattr("pyswarm_overlay.publisher.flows.nudge", lambda *_: None)
    asyncio.run(_walk(tmp_path, steps))


async def _walk(directory: Path, steps: list[tuple[str, Any]]) -> None:
    ground = FakeGround(OverlayConfig(run_dir=directory, state_dir=directory, node_address=HERE))
    current = network(1)
    publisher = Publisher(cast(Ground, ground), lambda: current)
    await publisher.start()
    for what, value in steps:
        match what:
            case "open":
                publisher.open(box(value), (f"172.18.0.{value + 2}/16",))
            case "release":
                publisher.release(f"c{value}")
            case "ports":
                publisher.set_ingress(IngressRecord(addresses=("10.9.0.2/24",), ports=(port(value),)))
            case _:
                current.replace(network(value + 2).state)
        await publisher.sync()
        assert ground.written[-1] == publisher.document()


def led_to(ground: FakeGround, chain: str) -> bool:
    """Whether the chain's rules name the first sandbox's way out."""
    rules = [command["add"]["rule"] for command in ground.written[-1] if "rule" in command.get("add", {})]
    return any(rule["chain"] == chain and "172.18.0.3" in str(rule["expr"]) for rule in rules)


async def test_a_withdrawn_task_gets_what_other_nodes_still_hand_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hear of its withdrawal one after the other; it is told to stop when all have."""
    monkeypatch.setattr("pyswarm_overlay.publisher.flows.end", lambda *_: [])
    monkeypatch.setattr("pyswarm_overlay.publisher.flows.nudge", lambda *_: None)
    ground = FakeGround(OverlayConfig(run_dir=tmp_path, state_dir=tmp_path, node_address=HERE))
    publisher = Publisher(cast(Ground, ground), lambda: network(1))
    publisher.open(box(1), ("172.18.0.3/16",))
    publisher.set_ingress(IngressRecord(addresses=("10.9.0.2/24",), ports=(port(frozenset({1})),)))
    await publisher.start()
    assert led_to(ground, "sctp_9000_any")
    assert led_to(ground, "near_sctp_9000")
    publisher.set_ingress(IngressRecord(addresses=("10.9.0.2/24",), ports=(port(frozenset()),)))
    await publisher.sync()
    assert not led_to(ground, "sctp_9000_any")
    assert led_to(ground, "near_sctp_9000")
    publisher.release("c1")
    await publisher.sync()
    assert not led_to(ground, "near_sctp_9000")


async def test_a_sandbox_without_ports_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ground = FakeGround(OverlayConfig(run_dir=tmp_path, state_dir=tmp_path, node_address=HERE))
    publisher = Publisher(cast(Ground, ground), lambda: None)
    publisher.set_ingress(IngressRecord(addresses=("10.9.0.2/24",), ports=(port(frozenset({1})),)))
    await publisher.start()
    monkeypatch.setattr(publisher, "_rules", lambda: pytest.fail("all ports were looked at"))
    publisher.open(box(2), ("172.18.0.9/16",))
    await publisher.sync()
    publisher.release("c2")
    await publisher.sync()


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ((), False),
        (("192.0.2.1/24", "::1/128", "fe80::1/64"), False),
        (("fd70::1/128",), False),
        (("fd00::2/64",), True),
        (("fe80::1/64", "2001:db8::1/64"), True),
    ],
)
def test_which_hosts_have_ipv6(addresses: tuple[str, ...], expected: bool) -> None:
    """For others to reach; our own ends of ways out are none."""
    assert subnets.reaches_ipv6(addresses, "fd70::/64") is expected


@given(
    seeds=st.lists(st.text(min_size=1), min_size=2, max_size=4),
    count=st.integers(0, 5),
    exists=st.booleans(),
    set_id=st.integers(3, 9),
)
def test_what_is_made_once_is_the_same_for_all(seeds: list[str], count: int, exists: bool, set_id: int) -> None:
    """A sandbox's messages name its own table and VIP, whatever was made before for others."""
    for number, seed in enumerate(seeds):
        vip, table = f"10.0.0.{number + 2}", f"t{number}"
        backends = [f"10.0.1.{one}" for one in range(count)]
        parts = nft_wire.put_vip(table, seed, vip, backends, exists=exists, set_id=set_id)
        named = nft_attributes.text(1, table)
        assert all(body.startswith(named) for _family, _kind, _flags, body in parts)
        rules = [body for _family, kind, _flags, body in parts if kind == nft_attributes.NEWRULE]
        assert len(rules) == nft_wire.rules_of(backends)
        assert all(nft_attributes.text(2, nft_wire.vip_chain(vip)) in body for body in rules)

"""Published ports as rules: what leads where, who is refused, whose address is kept."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay_values import HERE, THERE, endpoint

from pyswarm_overlay import IngressBackend, IngressPort
from pyswarm_overlay.core import host_rules, subnets
from pyswarm_overlay.core.host_rules import HostRules, Peer
from pyswarm_overlay.core.port_rules import Listener, Target
from pyswarm_overlay.core.published import (
    Surroundings,
    TargetKey,
    ingress_listener,
    relay_wanted,
    target_keys,
)
from pyswarm_overlay.core.returns import Peers, peers_of, returns_of
from pyswarm_overlay.holder import NoSuchAddress, PortHolder, PortKey
from pyswarm_overlay.kernel.flows import Flow, probe
from pyswarm_overlay.relay.header import header
from pyswarm_overlay.relay.wanted import RelayPort, RelayTarget, Wanted

PEER = Peer(THERE, ("10.9.0.3", "fd09::3"), "02:42:0a:09:00:03", 3)


def rules_of(*listeners: Listener, **changes: Any) -> HostRules:
    settings: dict[str, Any] = {
        "table": "ps_overlay",
        "gateway_ports": "ps-g*",
        "gateway_subnets": ("172.18.0.0/16", "fd70::/64"),
        "ingress_device": "ps-ing",
        "ingress_addresses": ("10.9.0.2", "fd09::2"),
        "listeners": listeners,
        "peers": (PEER,),
        "keeps_clients": True,
        "mark": 0x70530000,
    }
    return HostRules(**{**settings, **changes})


def chain(document: Iterable[dict[str, Any]], name: str) -> list[str]:
    rules = [command["add"]["rule"] for command in document if "rule" in command.get("add", {})]
    return [json.dumps(rule["expr"]) for rule in rules if rule["chain"] == name]


def test_only_our_table_is_touched() -> None:
    target = Target("172.18.0.5", 80, "t1", is_near=True)
    for command in host_rules.host_document(rules_of(Listener("tcp", 80, "", (target,), answers_nodes=True))):
        (thing,) = next(iter(command.values())).values()
        assert thing.get("table", thing.get("name")) == "ps_overlay"


def test_each_family_leads_to_its_own_targets() -> None:
    targets = (Target("172.18.0.5", 80, "t1", is_near=True), Target("fd70::5", 80, "t1", is_near=True))
    four, six = chain(host_rules.host_document(rules_of(Listener("tcp", 8080, "", targets))), "tcp_8080_any")
    assert "172.18.0.5" in four
    assert "fd70::5" not in four
    assert "fd70::5" in six
    assert "172.18.0.5" not in six


def test_nodes_are_led_to_tasks_of_this_host_only() -> None:
    targets = (Target("172.18.0.5", 80, "t1", is_near=True), Target("10.9.0.3", 8080, "t2", is_near=False))
    document = host_rules.host_document(rules_of(Listener("tcp", 8080, "", targets, answers_nodes=True)))
    (near,) = chain(document, "near_tcp_8080")
    assert "172.18.0.5" in near
    assert "10.9.0.3" not in near
    assert "10.9.0.3" in "".join(chain(document, "tcp_8080_any"))


def test_containers_send_nothing_to_the_nodes_tunnels() -> None:
    document = host_rules.host_document(rules_of(data_path_port=5000))
    assert any("ps-g*" in rule and "5000" in rule and "drop" in rule for rule in chain(document, "raw"))


def test_a_port_without_a_target_is_refused_and_leads_nowhere() -> None:
    document = host_rules.host_document(rules_of(Listener("udp", 8080, "", ())))
    assert chain(document, "ports") == []
    assert any("port-unreachable" in rule and "8080" in rule for rule in chain(document, "refused"))


def test_clients_are_kept_only_where_the_other_nodes_can_tell() -> None:
    kept = chain(host_rules.host_document(rules_of()), "postrouting")
    lost = chain(host_rules.host_document(rules_of(keeps_clients=False)), "postrouting")
    assert any("accept" in rule and "10.9.0.3" in rule for rule in kept)
    assert not any("accept" in rule for rule in lost)


def test_numbers_that_two_nodes_have_are_nobodys() -> None:
    nodes = [
        endpoint(1, endpoint_id=f"n{number}", service_id=None, node_address=f"192.0.2.{number}", addresses=(address,))
        for number, address in ((1, "10.1.0.2"), (2, "10.2.0.2"), (3, "10.2.0.3"))
    ]
    peers = peers_of(nodes, ["10.2.0.3/8"])
    assert {peer.number for peer in peers.others} == {0}
    assert peers.keeps_clients
    assert not peers_of(nodes, ["10.1.0.2/8"]).keeps_clients


def test_marked_packets_go_back_but_for_what_is_here() -> None:
    own, here = ("10.9.0.2/24", "fd09::2/64"), ("172.18.0.0/16", "10.9.0.0/24", "fd70::/64", "fd09::/64")
    found = returns_of(Peers((PEER,), keeps_clients=True), own, here)
    assert found.routes == ((3, "10.9.0.3"), (3, "fd09::3"))
    for is_ipv6 in (False, True):
        steps = [rule.step for rule in found.rules if rule.is_ipv6 == is_ipv6]
        assert steps == [0, 1, 1, 2, 3]
    assert returns_of(Peers((PEER,)), own[:1], here).routes == ((3, "10.9.0.3"),)
    assert returns_of(Peers(), own, here).rules == ()


def backend(number: int, node: str) -> IngressBackend:
    return IngressBackend(
        endpoint_id=f"t{number}", ingress_addresses=(f"10.9.0.{number}", f"fd09::{number}"), node_address=node
    )


def around(peers: Peers) -> Surroundings:
    return Surroundings(HERE, ("10.9.0.2", "fd09::2"), {"t10": ("172.18.0.5", "fd70::5")}, peers)


def published(**changes: Any) -> IngressPort:
    backends = (backend(10, HERE), backend(11, THERE), backend(12, "192.0.2.9"))
    settings: dict[str, Any] = {"published_port": 8080, "target_port": 80, "service_id": "s", "backends": backends}
    return IngressPort(**{**settings, **changes})


def test_a_task_elsewhere_is_reached_through_its_node_if_that_is_known() -> None:
    listener = ingress_listener(published(), around(Peers((PEER,))))
    assert {(one.address, one.port, one.is_near) for one in listener.targets} == {
        ("172.18.0.5", 80, True),
        ("fd70::5", 80, True),
        ("10.9.0.3", 8080, False),
        ("fd09::3", 8080, False),
        ("10.9.0.12", 80, False),
        ("fd09::12", 80, False),
    }


def test_policy_local_leads_to_this_hosts_tasks_only() -> None:
    listener = ingress_listener(published(policy="local"), around(Peers((PEER,))))
    assert {one.owner for one in listener.targets} == {"t10"}
    wanted = relay_wanted([published(policy="local")], {}, around(Peers()), Wanted(), ())
    assert [target.owner for target in wanted.ports[0].targets] == ["t10"]


def test_two_tasks_of_one_node_are_one_target_of_two() -> None:
    port = published(backends=(backend(11, THERE), backend(13, THERE)))
    keys = target_keys([ingress_listener(port, around(Peers((PEER,))))])
    assert keys[TargetKey("tcp", "10.9.0.3", 8080)] == {"t11", "t13"}


def test_the_relay_lets_withdrawn_backends_finish_as_long_as_they_exist() -> None:
    before = relay_wanted([published()], {}, around(Peers()), Wanted(), ())
    after = relay_wanted([published(backends=())], {}, around(Peers()), before, {"t11"})
    assert after.ports[0].targets == ()
    assert [target.owner for target in after.ports[0].lingering] == ["t11"]
    again = relay_wanted([published(backends=())], {}, around(Peers()), after, ())
    assert again == Wanted(ports=(RelayPort(port=8080),))


@given(
    st.sampled_from(["", "192.0.2.1", "fd00::1"]), st.lists(st.integers(2, 200), unique=True, max_size=8), st.booleans()
)
def test_listeners_keep_every_backend(host_ip: str, numbers: list[int], is_sticky: bool) -> None:
    affinity = "client_ip" if is_sticky else "none"
    backends = tuple(backend(number, THERE if number % 2 else HERE) for number in numbers)
    listener = ingress_listener(
        published(backends=backends, host_ip=host_ip, session_affinity=affinity), around(Peers((PEER,)))
    )
    for is_ipv6 in (False, True):
        owners = [one.owner for one in listener.targets if (":" in one.address) == is_ipv6]
        assert sorted(owners) == sorted(f"t{number}" for number in numbers)


@pytest.mark.parametrize(
    ("address", "subnet", "expected"),
    [
        ("172.18.0.5/16", "fd70::/64", "fd70::5/64"),
        ("172.18.1.0/16", "fd70::/64", "fd70::100/64"),
        ("172.18.0.5/16", None, None),
    ],
)
def test_the_ipv6_way_out_follows_from_the_ipv4_one(address: str, subnet: str | None, expected: str | None) -> None:
    assert subnets.twin(address, subnet) == expected


def test_an_ipv6_subnet_that_somebody_routes_is_passed_over() -> None:
    assert subnets.choose_ipv6("fd70::/64", ["10.0.0.0/8", "fd70::1/128"]) == "fd70::/64"
    assert subnets.choose_ipv6("fd70::/64", ["fd70::/63"]) == "fd70:0:0:2::/64"
    assert subnets.choose_ipv6("fd70::/64", ["fc00::/7"]) is None
    assert subnets.choose_ipv6("", []) is None


def test_the_header_says_who_the_client_is() -> None:
    """Against the examples of its specification, part by part."""
    four = header(("192.0.2.7", 5555), ("198.51.100.1", 80))
    assert four[:12] == bytes.fromhex("0d0a0d0a000d0a515549540a")
    assert four[12:16] == bytes([0x21, 0x11, 0, 12])
    assert four[16:] == socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + struct.pack(">HH", 5555, 80)
    six = header(("2001:db8::7", 5555), ("2001:db8::1", 80))
    assert six[12:16] == bytes([0x21, 0x21, 0, 36])
    assert len(six) == 16 + 36
    with pytest.raises(ValueError, match="one family"):
        header(("192.0.2.7", 1), ("2001:db8::1", 1))


@pytest.mark.parametrize(("client", "server"), [("192.0.2.7", "192.0.2.1"), ("2001:db8::7", "2001:db8::1")])
def test_the_question_to_a_client_has_right_checksums(client: str, server: str) -> None:
    packet = probe(Flow((client, 5555), (server, 8080), 0))
    length = 20 if ":" not in client else 40
    family = socket.AF_INET if ":" not in client else socket.AF_INET6
    pseudo = socket.inet_pton(family, server) + socket.inet_pton(family, client) + struct.pack(">II", 20, 6)
    total = sum(struct.unpack(">30H" if length == 40 else ">18H", pseudo + packet[length:]))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF
    assert struct.unpack(">HH", packet[length : length + 4]) == (8080, 5555)


def test_a_port_has_one_owner() -> None:
    holder, other = PortHolder(), PortHolder()
    probed = PortKey("tcp", 0, "127.0.0.1")
    assert holder.hold(probed, "a")
    (bound,) = holder._held[probed][0]
    key = PortKey("tcp", bound.getsockname()[1], "127.0.0.1")
    assert not other.hold(key, "b")
    holder.release(probed)
    assert other.hold(key, "b")
    assert other.hold(key, "b")
    assert not other.hold(key, "c")
    other.keep("b", [])
    assert other.hold(key, "c")
    other.close()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_is_held_in_both_families(protocol: str, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as taken:
        taken.bind((address, 0))
        holder = PortHolder()
        assert not holder.hold(PortKey(protocol, taken.getsockname()[1]), "a")
        holder.close()


def test_a_port_at_an_address_of_another_node_is_told_apart() -> None:
    with pytest.raises(NoSuchAddress):
        PortHolder().hold(PortKey("tcp", 8080, "203.0.113.77"), "a")


def test_relay_targets_are_compared_by_value() -> None:
    assert RelayTarget("10.0.0.1", 80, "t") in {RelayTarget("10.0.0.1", 80, "t")}

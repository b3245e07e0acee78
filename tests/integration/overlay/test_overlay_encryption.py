"""Encrypted networks between real hosts: what works, what is on the wire, what survives."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from overlay_lab import Host, Lab, ask, lab_of, visit
from test_overlay_kernel import box, endpoint

from pyswarm_overlay import NetworkTable
from pyswarm_overlay.encryption.core.addresses import node_address
from pyswarm_overlay.encryption.types import TunnelKey, TunnelPeer

pytestmark = pytest.mark.root

NET = "net1"
VNI = 4097
DEADLINE_S = 20.0


def sealed_table(*endpoints: object, version: int = 1) -> NetworkTable:
    return NetworkTable(
        network_id=NET,
        name="web-net",
        vni=VNI,
        subnets=("10.0.1.0/24",),
        gateways=("10.0.1.1",),
        options={"encrypted": ""},
        version=version,
        endpoints=endpoints,  # type: ignore[arg-type]
    )


def wait_until(what: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.02)


def peer_of(host: Host) -> TunnelPeer:
    keys = [TunnelKey(**{**key, "public_key": __import__("base64").b64decode(key["public_key"])}) for key in host.call("tunnel_keys")]
    return TunnelPeer(node_id=host.address, address=host.address, keys=tuple(keys))


def introduce(hosts: list[Host]) -> None:
    """What managers do: tell every host of the others' keys."""
    peers = {host.address: peer_of(host) for host in hosts}
    for host in hosts:
        host.call("update_peers", [peer for address, peer in peers.items() if address != host.address], [], True)


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Lab]:
    """c10 and c12 on an encrypted network of two hosts that know one another."""
    with lab_of(tmp_path, hosts=2) as lab:
        first, second = lab.hosts
        table = sealed_table(endpoint(10, first), endpoint(12, second))
        for host in lab.hosts:
            host.start()
            host.call("apply_table", table)
        first.call("attach", box(10))
        second.call("attach", box(12))
        introduce(lab.hosts)
        lab.serve(second.netns("c12"), "c12")
        lab.serve(first.netns("c10"), "c10")
        yield lab


def test_sandboxes_reach_one_another_through_a_tunnel(sealed: Lab) -> None:
    first, second = sealed.hosts
    assert first.visit("c10", lambda: ask("10.0.1.12")) == ["c12", "10.0.1.10"]
    assert second.visit("c12", lambda: ask("10.0.1.10")) == ["c10", "10.0.1.12"]
    assert first.call("verify") == []

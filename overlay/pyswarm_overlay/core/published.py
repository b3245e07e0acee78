"""What this host's published ports lead to: from ports, tasks and nodes to the listeners of `port_rules`. Pure.

A task of this host is reached through its way out. A task elsewhere is reached through its node, which is told apart
from going to it directly in `host_rules`; directly only where its node is not known on the ingress network.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import msgspec

from pyswarm_overlay.relay.wanted import RelayPort, RelayTarget, Wanted
from pyswarm_overlay.types import HostPort, IngressBackend, IngressPort

from .expressions import FAMILIES
from .nft_wire import rotated
from .port_rules import Listener, Target
from .returns import Peers


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What targets depend on besides the ports."""

    node_address: str
    ingress_addresses: tuple[str, ...]
    """This node's own, without prefix length."""
    gateways: Mapping[str, tuple[str, ...]]
    """Endpoint -> its addresses on the way out, of the tasks that are up here."""
    peers: Peers


@dataclass(frozen=True, slots=True, order=True)
class TargetKey:
    """What connection tracking knows of a target: whose answers it waits for."""

    protocol: str
    address: str
    port: int


def ingress_listener(port: IngressPort, around: Surroundings, *, answers_here: bool = True) -> Listener:
    backends = sorted(port.backends, key=lambda backend: backend.endpoint_id)
    targets = [target for backend in backends for target in _targets(port, backend, around)]
    seed = f"{around.node_address} {port.protocol} {port.published_port}"
    turned: list[Target] = []
    for family in FAMILIES:
        by_text = {f"{one.owner} {one.address}": one for one in targets if one.family == family}
        turned += [by_text[text] for text in rotated(list(by_text), seed)]
    return Listener(
        protocol=port.protocol,
        port=port.published_port,
        host_ip=port.host_ip,
        targets=tuple(turned),
        is_sticky=port.session_affinity == "client_ip",
        answers_here=answers_here,
        answers_nodes=True,
    )


def with_leaving(listener: Listener, before: Listener | None, around: Surroundings) -> Listener:
    """With the tasks of this host that were behind it before and still run, if it has no others here.

    Nodes hear of a withdrawal one after the other. Until all have, and only then is the task told to stop, one of them
    may still lead a client to this node.
    """
    if before is None or any(target.is_near for target in listener.targets):
        return listener
    return replace(listener, leaving=tuple(target for target in before.near if target.owner in around.gateways))


def _targets(port: IngressPort, backend: IngressBackend, around: Surroundings) -> list[Target]:
    owner = backend.endpoint_id
    local = around.gateways.get(owner)
    if local is not None:
        return [Target(address, port.target_port, owner, is_near=True) for address in local]
    is_here = backend.node_address == around.node_address
    if port.policy == "local" and not is_here:
        return []
    peer = None if is_here else around.peers.of_node(backend.node_address)
    targets = []
    for is_ipv6 in {":" in address for address in around.ingress_addresses}:
        at_node = [] if peer is None else [one for one in peer.addresses if (":" in one) == is_ipv6]
        at_task = [one for one in backend.ingress_addresses if (":" in one) == is_ipv6]
        if at_node:
            targets.append(Target(at_node[0], port.published_port, owner, is_near=False))
        elif at_task:
            targets.append(Target(at_task[0], port.target_port, owner, is_near=is_here))
    return targets


def host_listener(port: HostPort, sandbox_id: str, addresses: tuple[str, ...]) -> Listener:
    """A port of one sandbox."""
    targets = tuple(Target(address, port.target, sandbox_id, is_near=True) for address in addresses)
    return Listener(port.protocol, port.published, port.host_ip, targets)


def target_keys(listeners: Collection[Listener]) -> dict[TargetKey, frozenset[str]]:
    """Every target, and the backends that are meant by it."""
    found: dict[TargetKey, set[str]] = {}
    for listener in listeners:
        for target in listener.targets:
            found.setdefault(TargetKey(listener.protocol, target.address, target.port), set()).add(target.owner)
    return {key: frozenset(owners) for key, owners in found.items()}


def relay_wanted(
    ingress: Collection[IngressPort],
    host: Mapping[str, Collection[HostPort]],
    around: Surroundings,
    before: Wanted,
    alive: Collection[str],
) -> Wanted:
    """What the relay is told. It goes to tasks directly, in whichever family they have: the header names the client.

    `host`: the ports of each sandbox that is up; `alive`: the backends whose connections may go on.
    """
    wanted = [(port.host_ip, port.published_port, _relay_targets(port, around), port) for port in ingress]
    ports = [
        RelayPort(host_ip=host_ip, port=number, targets=targets, is_sticky=port.session_affinity == "client_ip")
        for host_ip, number, targets, port in wanted
    ]
    for sandbox_id in sorted(host):
        address = next(iter(around.gateways.get(sandbox_id, ())), None)
        for one in host[sandbox_id]:
            target = () if address is None else (RelayTarget(address, one.target, sandbox_id),)
            ports.append(RelayPort(host_ip=one.host_ip, port=one.published, targets=target))
    former = {(port.host_ip, port.port): (*port.targets, *port.lingering) for port in before.ports}
    return Wanted(ports=tuple(_with_lingering(port, former, alive) for port in ports))


def _with_lingering(
    port: RelayPort, former: Mapping[tuple[str, int], tuple[RelayTarget, ...]], alive: Collection[str]
) -> RelayPort:
    """Connections to backends that were withdrawn and still exist may finish."""
    old = former.get((port.host_ip, port.port), ())
    lingering = tuple(target for target in old if target not in port.targets and target.owner in alive)
    return msgspec.structs.replace(port, lingering=tuple(dict.fromkeys(lingering)))


def _relay_targets(port: IngressPort, around: Surroundings) -> tuple[RelayTarget, ...]:
    targets: list[RelayTarget] = []
    for backend in sorted(port.backends, key=lambda backend: backend.endpoint_id):
        local = around.gateways.get(backend.endpoint_id)
        families = {":" in address for address in around.ingress_addresses}
        remote = [address for address in backend.ingress_addresses if (":" in address) in families]
        if local is not None:
            targets.append(RelayTarget(local[0], port.target_port, backend.endpoint_id))
        elif remote and (port.policy == "spread" or backend.node_address == around.node_address):
            targets.append(RelayTarget(remote[0], port.target_port, backend.endpoint_id))
    return tuple(targets)

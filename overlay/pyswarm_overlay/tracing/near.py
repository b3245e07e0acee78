"""The near side of a way: what the container's resolver answers, what its rules make of it, which tunnel is taken."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network

from pyswarm_common.errors import NotFound
from pyswarm_overlay.core import comparison, names, nft_wire, ways
from pyswarm_overlay.core.tables import TableState
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.kernel import libc, mending, nft
from pyswarm_overlay.kernel.netlink import Netlink
from pyswarm_overlay.network import Devices, Network
from pyswarm_overlay.networks import Networks
from pyswarm_overlay.reports import Hop, Source, Step
from pyswarm_overlay.sandbox import Builder, LiveSandbox
from pyswarm_overlay.sandboxes import Sandboxes

_DNS_TIMEOUT_S = 2.0
_PROBE_TIMEOUT_S = 3.0
_MAX_HOPS = 32
_NO_SUCH_NAME = 3


Owned = tuple[tuple[str, str], ...]
"""(network id, own address) of a container: on a network of both families, two."""


@dataclass(frozen=True, slots=True)
class Inside:
    """What was seen in the container's namespace."""

    steps: tuple[Step, ...]
    addresses: tuple[str, ...]
    """That packets will have as their destination, after the VIP rules."""
    own: Owned


class NearSide:
    """Owned by `OverlayHost`."""

    def __init__(self, ground: Ground, networks: Networks, sandboxes: Sandboxes) -> None:
        self._ground = ground
        self._networks = networks
        self._sandboxes = sandboxes

    async def look(self, sandbox_id: str, target: str) -> Source:
        """`target`: a name or an address."""
        found: list[Inside] = []

        def see(builder: Builder, live: LiveSandbox) -> list[str]:
            found.append(self._inside(builder, live, target))
            return []

        await self._sandboxes.visit(sandbox_id, see)
        if not found:
            raise NotFound(f"sandbox {sandbox_id} is not up on this node")
        steps, hops = list(found[0].steps), []
        for address in found[0].addresses[:_MAX_HOPS]:
            more, hop = await self._hop(address, found[0].own)
            steps += more
            if hop is not None:
                hops.append(hop)
        return Source(tuple(steps), tuple(hops))

    def _inside(self, builder: Builder, live: LiveSandbox, target: str) -> Inside:
        """Blocking; moves this thread into the namespace."""
        _enter(live)
        netlink = Netlink()
        try:
            problems = comparison.sandbox_problems(builder.interfaces, mending.observe(netlink))
        finally:
            netlink.close()
        steps = [Step("warning", "interface", problem) for problem in problems]
        resolved = _resolve(target, steps)
        addresses: dict[str, None] = {}
        for address in resolved:
            addresses.update((backend, None) for backend in self._behind(live, address, steps))
        own = [
            (attachment.network_id, address.partition("/")[0])
            for attachment in live.sandbox.attachments
            for address in attachment.addresses
        ]
        return Inside(tuple(steps), tuple(addresses), tuple(own))

    def _behind(self, live: LiveSandbox, address: str, steps: list[Step]) -> list[str]:
        """The backends of a VIP as the rules in this sandbox have them; another address stands for itself."""
        wanted = next((vips[address] for vips in live.vips.values() if address in vips), None)
        if wanted is None:
            return [address]
        table = names.sandbox_table(self._ground.config.prefix)
        found = _observed_backends(table, address)
        if found is None:
            steps.append(Step("stop", "vip", f"{address} is a virtual address, but no rule in this container leads on"))
            return []
        if not found:
            steps.append(Step("stop", "vip", f"{address} is a virtual address without a backend that is ready"))
            return []
        steps.append(Step("ok", "vip", f"{address} is a virtual address: it leads to {', '.join(found)}"))
        odd = set(found).symmetric_difference(wanted)
        if odd:
            steps.append(Step("warning", "vip", f"the rules differ from the table in {', '.join(sorted(odd))}"))
        return found

    async def _hop(self, address: str, own: Owned) -> tuple[list[Step], Hop | None]:
        network = self._network_of(address, own)
        if network is None:
            return [Step("ok", "backend", f"{address} is on none of the container's networks: it is outside")], Hop(
                "", "", "", address
            )
        state = network.state
        record = next((one for one in state.endpoints.values() if address in one.addresses), None)
        name = state.table.name
        if record is None:
            return [Step("stop", "backend", f"{address} belongs to nobody on network {name}")], None
        what = f"{address} is {record.name or record.endpoint_id} on network {name}"
        steps = [Step("ok" if record.ready else "warning", "backend", what + ("" if record.ready else ", not ready"))]
        network_id = state.table.network_id
        hop = Hop(network_id, name, sender(own, network_id, address), address, "", record.endpoint_id)
        if record.node_address == self._ground.config.node_address or not isinstance(network.devices, Devices):
            return [*steps, Step("ok", "tunnel", f"{address} is on this node")], hop
        async with network.lock:
            observed = await self._ground.threads.run(partial(tunnel, network.devices, address))
        way = tunnel_step(address, record.node_address, observed)
        if way.outcome == "stop":
            return [*steps, way], None
        return [*steps, way], Hop(
            hop.network_id, name, hop.source_address, address, record.node_address, record.endpoint_id
        )

    def _network_of(self, address: str, own: Owned) -> Network | None:
        for network_id, _ in own:
            network = self._networks.find(network_id)
            if network is not None and _is_in(address, network.state):
                return network
        return None

    async def probe(self, sandbox_id: str, target: str, port: int) -> Step:
        """A TCP connection from inside, as the container would open it."""
        found: list[Step] = []

        def knock(_builder: Builder, live: LiveSandbox) -> list[str]:
            _enter(live)
            found.append(_connect(target, port))
            return []

        await self._sandboxes.visit(sandbox_id, knock)
        return found[0] if found else Step("stop", "probe", "the container is not up")


def _enter(live: LiveSandbox) -> None:
    fd = live.sockets.netfilter.namespace()
    try:
        libc.setns(fd)
    finally:
        os.close(fd)


def _resolve(target: str, steps: list[Step]) -> list[str]:
    """What 127.0.0.11 answers in the calling thread's namespace."""
    try:
        return [str(ip_address(target))]
    except ValueError:
        pass
    found: list[str] = []
    codes = set()
    try:
        for kind in (ways.A, ways.AAAA):
            code, addresses = _ask(target, kind)
            codes.add(code)
            found += addresses
    except ValueError as error:
        steps.append(Step("stop", "name", str(error)))
        return []
    except OSError as error:
        steps.append(Step("stop", "name", f"nobody answers for names in this container ({error.strerror or error})"))
        return []
    if found:
        steps.append(Step("ok", "name", f"{target} is {', '.join(found)}"))
    elif _NO_SUCH_NAME in codes:
        steps.append(Step("stop", "name", f"{target} does not exist for this container"))
    else:
        steps.append(Step("stop", "name", f"{target} exists for this container, but has no address"))
    return found


def _ask(name: str, kind: int) -> tuple[int, list[str]]:
    identifier = int.from_bytes(os.urandom(2), "big")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(_DNS_TIMEOUT_S)
        asking.connect((nft_wire.RESOLVER, 53))
        asking.send(ways.dns_question(name, kind, identifier))
        answer = ways.dns_answer(asking.recv(65535), identifier)
    if answer is None:
        raise OSError("an answer that is none")
    return answer


def _observed_backends(table: str, vip: str) -> list[str] | None:
    """As the rules in the calling thread's namespace have them."""
    for family in ("inet", "ip", "ip6"):
        try:
            listing = nft.run([{"list": {"table": {"family": family, "name": table}}}])
        except nft.NftRefused:
            continue
        found = ways.backends_in(listing, nft_wire.vip_chain(vip), vip)
        if found is not None:
            return found
    return None


def _is_in(address: str, state: TableState) -> bool:
    parsed = ip_address(address)
    return any(parsed in ip_network(subnet) for subnet in state.table.subnets) or address in state.addresses


def sender(own: Owned, network_id: str, to: str) -> str:
    """The container's address that packets to `to` come from: of the same network and family, else none is known."""
    version = ip_address(to).version
    mine = (address for network, address in own if network == network_id)
    return next((address for address in mine if ip_address(address).version == version), "")


def tunnel(devices: Devices, address: str) -> tuple[str, str]:
    """(MAC, underlay address) as the kernel has them; empty where it has none."""
    found = mending.observe(devices.netlink, forwarding=True)
    macs = [one.mac for one in found.neighbours if one.index == devices.vxlan and one.address == address]
    mac = macs[0] if macs else ""
    remotes = [one.remote for one in found.neighbours if one.of_device and one.mac == mac and one.remote]
    return mac, remotes[0] if remotes else ""


def tunnel_step(address: str, node_address: str, observed: tuple[str, str]) -> Step:
    mac, remote = observed
    if not mac:
        return Step("stop", "tunnel", f"the kernel has no neighbour entry for {address}")
    if not remote:
        return Step("stop", "tunnel", f"the kernel has no forwarding entry for {mac} ({address})")
    if remote != node_address:
        return Step("stop", "tunnel", f"{address} is sent to {remote}, but is on {node_address}")
    return Step("ok", "tunnel", f"{address} is {mac}, sent through the tunnel to {remote}")


def _connect(target: str, port: int) -> Step:
    addresses = _resolve(target, [])
    if not addresses:
        return Step("stop", "probe", f"{target} has no address")
    began = time.monotonic()
    try:
        with socket.create_connection((addresses[0], port), timeout=_PROBE_TIMEOUT_S):
            took_ms = (time.monotonic() - began) * 1000
            return Step("ok", "probe", f"connected to {addresses[0]} port {port} in {took_ms:.1f} ms")
    except TimeoutError:
        return Step("stop", "probe", f"no answer from {addresses[0]} port {port} in {_PROBE_TIMEOUT_S:.0f} s")
    except OSError as error:
        return Step("stop", "probe", f"{addresses[0]} port {port}: {error.strerror or error}")

"""Networks whose driver, or whose giver of addresses, is a plugin: what it is asked, in which order, and given back.

CreateNetwork before the first endpoint on this node, CreateEndpoint and Join before the sandbox is built, Leave and
DeleteEndpoint when it has gone, DeleteNetwork after the last. Each is in the ledger before it is asked. A plugin that
refuses to release something has answered: it knows best. One that does not answer is asked again (`sweep`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable
from ipaddress import ip_interface, ip_network

import msgspec

from pyswarm_common.errors import NotFound, Unavailable
from pyswarm_common.network_options import BUILT_IN, DEFAULT_IPAM
from pyswarm_overlay.core import names
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.kernel import rtnl
from pyswarm_overlay.locks import KeyedLocks

from . import plugin_protocol as protocol
from .plugin_client import Empty, Plugin, Refused
from .plugin_discovery import PluginPlaces, find
from .plugin_ledger import EndpointEntry, Ledger, NetworkEntry, PoolEntry
from .settings import Settings

log = logging.getLogger(__name__)


def is_plugin(driver: str) -> bool:
    return bool(driver) and driver not in BUILT_IN


def has_ipam_plugin(settings: Settings) -> bool:
    return settings.ipam_driver not in ("", DEFAULT_IPAM)


class PluginNetworks:
    """Of one host."""

    def __init__(self, ground: Ground, places: PluginPlaces) -> None:
        self._ground = ground
        self._places = places
        self._ledger = Ledger(ground.config.state_dir / "plugins")
        self._locks = KeyedLocks()
        self._mine: dict[str, None] = {}
        """Endpoints that were placed since this daemon started: whoever placed them releases them."""
        self._told: dict[str, frozenset[str]] = {}
        """Plugin -> the nodes that it was told of."""

    def load(self) -> None:
        self._ledger.load()

    def endpoints(self, network_id: str) -> dict[str, EndpointEntry]:
        """By the names of their ports."""
        entry = self._ledger.get(network_id)
        found = {} if entry is None else entry.endpoints
        return {names.network_port(one.sandbox_id, network_id): one for one in found.values()}

    def pools(self, network_id: str) -> tuple[PoolEntry, ...]:
        """That a plugin gave the network on this node."""
        entry = self._ledger.get(network_id)
        return () if entry is None else entry.pools

    def endpoint(self, network_id: str, sandbox_id: str) -> EndpointEntry | None:
        return self.endpoints(network_id).get(names.network_port(sandbox_id, network_id))

    # -- coming ------------------------------------------------------------------------------------------------------

    async def place(
        self, settings: Settings, sandbox_id: str, wanted: tuple[str, ...], peers: Iterable[str]
    ) -> tuple[str, ...]:
        """The sandbox's addresses on the network, its interface made by the plugin; `wanted`: those it should have."""
        async with self._locks.hold(settings.network_id):
            endpoint_id = _endpoint_id(settings.network_id, sandbox_id)
            self._mine[endpoint_id] = None
            entry = await self._network(settings)
            known = entry.endpoints.get(endpoint_id) or EndpointEntry(endpoint_id=endpoint_id, sandbox_id=sandbox_id)
            if has_ipam_plugin(settings):
                known = await self._request_addresses(entry, known, wanted)
            else:
                known = msgspec.structs.replace(known, addresses=wanted)
            if is_plugin(settings.driver) and known.joined is None:
                await self._tell_nodes(settings.driver, peers)
                known = await self._join(entry, known)
            return known.addresses

    async def _network(self, settings: Settings) -> NetworkEntry:
        known = self._ledger.get(settings.network_id)
        entry = known or NetworkEntry(
            network_id=settings.network_id,
            name=settings.name,
            driver=settings.driver if is_plugin(settings.driver) else "",
            ipam_driver=settings.ipam_driver if has_ipam_plugin(settings) else "",
        )
        if entry.ipam_driver and not entry.pools:
            entry = await self._request_pools(self._ledger.put(entry), settings)
        if entry.driver and not entry.is_made:
            if entry.is_asked:  # the answer was lost: it may be half made
                which = {"NetworkID": entry.network_id}
                await self._give_back(entry.driver, "NetworkDriver.DeleteNetwork", which)
            entry = self._ledger.put(msgspec.structs.replace(entry, is_asked=True))
            await self._ask(entry.driver, "NetworkDriver.CreateNetwork", _create_network(settings, entry))
            entry = self._ledger.put(msgspec.structs.replace(entry, is_made=True))
        return entry

    async def _request_pools(self, entry: NetworkEntry, settings: Settings) -> NetworkEntry:
        plugin = self._find(entry.ipam_driver)
        spaces = await plugin.call("IpamDriver.GetDefaultAddressSpaces", {}, protocol.AddressSpaces)
        for index, subnet in enumerate(settings.subnets or ("",)):
            part = settings.ip_ranges[index] if index < len(settings.ip_ranges) else ""
            request = {
                "AddressSpace": spaces.LocalDefaultAddressSpace,
                "Pool": subnet,
                "SubPool": part,
                "Options": settings.ipam_options,
                "V6": ":" in subnet,
            }
            answer = await plugin.call("IpamDriver.RequestPool", request, protocol.PoolAnswer)
            pool_id, text = protocol.checked_pool(answer, plugin.name)
            pool = PoolEntry(pool_id=pool_id, subnet=text)
            entry = self._ledger.put(msgspec.structs.replace(entry, pools=(*entry.pools, pool)))
            wanted = settings.gateways[index] if index < len(settings.gateways) else ""
            gateway = await self._request_address(
                plugin, pool, wanted, {protocol.REQUEST_TYPE: protocol.GATEWAY_REQUEST}
            )
            pools = (*entry.pools[:-1], msgspec.structs.replace(pool, gateway=gateway))
            entry = self._ledger.put(msgspec.structs.replace(entry, pools=pools))
        return entry

    async def _request_addresses(
        self, entry: NetworkEntry, endpoint: EndpointEntry, wanted: tuple[str, ...]
    ) -> EndpointEntry:
        plugin = self._find(entry.ipam_driver)
        for pool in entry.pools[len(endpoint.addresses) :]:
            subnet = ip_network(pool.subnet)
            fixed = next((text for text in wanted if ip_interface(text).ip in subnet), "")
            address = await self._request_address(plugin, pool, fixed.partition("/")[0], {})
            endpoint = msgspec.structs.replace(
                endpoint, addresses=(*endpoint.addresses, address), of_pools=(*endpoint.of_pools, pool.pool_id)
            )
            self._put_endpoint(entry.network_id, endpoint)
        return endpoint

    @staticmethod
    async def _request_address(plugin: Plugin, pool: PoolEntry, wanted: str, options: dict[str, str]) -> str:
        request = {"PoolID": pool.pool_id, "Address": wanted, "Options": options}
        answer = await plugin.call("IpamDriver.RequestAddress", request, protocol.AddressAnswer)
        return protocol.checked_address(answer.Address, plugin.name)

    async def _join(self, entry: NetworkEntry, endpoint: EndpointEntry) -> EndpointEntry:
        plugin = self._find(entry.driver)
        if endpoint.is_asked:  # the answer was lost, or what it made is
            await self._delete_endpoint(entry, endpoint)
        endpoint = self._put_endpoint(entry.network_id, msgspec.structs.replace(endpoint, is_asked=True))
        which = {"NetworkID": entry.network_id, "EndpointID": endpoint.endpoint_id}
        create = {**which, "Options": {}, "Interface": _interface(endpoint.addresses)}
        made = await plugin.call("NetworkDriver.CreateEndpoint", create, protocol.EndpointAnswer)
        join = {**which, "SandboxKey": str(self._ground.sandbox_path(endpoint.sandbox_id)), "Options": {}}
        answer = await plugin.call("NetworkDriver.Join", join, protocol.JoinAnswer)
        joined = protocol.checked_joined(answer, plugin.name)
        mac = protocol.checked_mac(made) or await self._ground.threads.run(lambda: self._mac_of(joined.source))
        if joined.gateways:
            options: dict[str, object] = {protocol.PORT_MAP: [], protocol.EXPOSED_PORTS: []}
            external = {**which, "Options": options}
            await plugin.call("NetworkDriver.ProgramExternalConnectivity", external, Empty)
        return self._put_endpoint(entry.network_id, msgspec.structs.replace(endpoint, joined=joined, mac=mac))

    def _mac_of(self, name: str) -> str:
        link = rtnl.read_link(self._ground.netlink, name)
        return "" if link is None else link.mac

    async def _tell_nodes(self, driver: str, peers: Iterable[str]) -> None:
        """A driver that spans nodes hears of those that its networks are on."""
        plugin = self._find(driver)
        if driver not in self._told:
            capabilities = await plugin.call("NetworkDriver.GetCapabilities", {}, protocol.Capabilities)
            self._told[driver] = frozenset()
            if capabilities.Scope != "global":
                return
        elif not self._told[driver]:
            return
        own = self._ground.config.node_address
        now = frozenset({own, *peers})
        for method, addresses in (("New", now - self._told[driver]), ("Delete", self._told[driver] - now)):
            for address in sorted(addresses):
                data = {"Address": address, "BindAddress": address, "Self": address == own}
                request = {"DiscoveryType": protocol.NODE_DISCOVERY, "DiscoveryData": data}
                await plugin.call(f"NetworkDriver.Discover{method}", request, Empty)
        self._told[driver] = now

    # -- going -------------------------------------------------------------------------------------------------------

    async def renew(self, network_id: str, sandbox_id: str) -> None:
        """Have another interface made in place of one that is gone."""
        async with self._locks.hold(network_id):
            entry, endpoint = self._ledger.get(network_id), self.endpoint(network_id, sandbox_id)
            if entry is None or endpoint is None or not entry.driver:
                return
            await self._join(entry, msgspec.structs.replace(endpoint, joined=None, mac=""))

    async def leave(self, network_id: str, sandbox_id: str) -> None:
        """Give back what the sandbox had; what cannot be now is given back later."""
        async with self._locks.hold(network_id):
            self._mine.pop(_endpoint_id(network_id, sandbox_id), None)
            try:
                await self._release(network_id, _endpoint_id(network_id, sandbox_id))
            except (Unavailable, NotFound) as error:
                log.warning("what a plugin made for sandbox %s is given back later: %s", sandbox_id, error)

    async def sweep(self, sandbox_ids: Collection[str]) -> list[str]:
        """Give back what belongs to no sandbox: left by a daemon that was killed, or by a plugin that was away."""
        done: list[str] = []
        for entry in self._ledger.all():
            async with self._locks.hold(entry.network_id):
                done += await self._sweep(entry.network_id, sandbox_ids)
        return done

    async def _sweep(self, network_id: str, sandbox_ids: Collection[str]) -> list[str]:
        entry = self._ledger.get(network_id)
        if entry is None:
            return []
        kept = [
            one for one in entry.endpoints.values() if one.sandbox_id in sandbox_ids or one.endpoint_id in self._mine
        ]
        strays = [one for one in entry.endpoints.values() if one not in kept]
        try:
            for one in strays:
                await self._release(network_id, one.endpoint_id)
            if not kept and not strays:
                await self._release(network_id, "")
        except (Unavailable, NotFound) as error:
            log.warning("network %s: %s", entry.name, error)
            return []
        return [f"gave back endpoint {one.endpoint_id[:12]} of network {entry.name}" for one in strays]

    async def _release(self, network_id: str, endpoint_id: str) -> None:
        """One endpoint, and the network after the last."""
        entry = self._ledger.get(network_id)
        if entry is None:
            return
        endpoint = entry.endpoints.get(endpoint_id)
        if endpoint is not None:
            if endpoint.is_asked:
                await self._delete_endpoint(entry, endpoint)
            for pool_id, address in zip(endpoint.of_pools, endpoint.addresses, strict=False):
                request = {"PoolID": pool_id, "Address": address.partition("/")[0]}
                await self._give_back(entry.ipam_driver, "IpamDriver.ReleaseAddress", request)
            entry = self._ledger.put(entry.without_endpoint(endpoint_id))
        if not entry.endpoints:
            await self._release_network(entry)

    async def _delete_endpoint(self, entry: NetworkEntry, endpoint: EndpointEntry) -> None:
        which = {"NetworkID": entry.network_id, "EndpointID": endpoint.endpoint_id}
        if endpoint.joined is not None and endpoint.joined.gateways:
            await self._give_back(entry.driver, "NetworkDriver.RevokeExternalConnectivity", which)
        await self._give_back(entry.driver, "NetworkDriver.Leave", which)
        await self._give_back(entry.driver, "NetworkDriver.DeleteEndpoint", which)

    async def _release_network(self, entry: NetworkEntry) -> None:
        if entry.is_asked:
            await self._give_back(entry.driver, "NetworkDriver.DeleteNetwork", {"NetworkID": entry.network_id})
        for pool in entry.pools:
            if pool.gateway:
                request = {"PoolID": pool.pool_id, "Address": pool.gateway.partition("/")[0]}
                await self._give_back(entry.ipam_driver, "IpamDriver.ReleaseAddress", request)
            await self._give_back(entry.ipam_driver, "IpamDriver.ReleasePool", {"PoolID": pool.pool_id})
        self._ledger.remove(entry.network_id)

    async def _give_back(self, name: str, method: str, request: object) -> None:
        """A refusal is an answer: the plugin does not have it (any more)."""
        try:
            await self._ask(name, method, request)
        except Refused as error:
            log.warning("%s", error)

    async def _ask(self, name: str, method: str, request: object) -> None:
        await self._find(name).call(method, request, Empty)

    def _find(self, name: str) -> Plugin:
        return find(self._places, name)

    def _put_endpoint(self, network_id: str, endpoint: EndpointEntry) -> EndpointEntry:
        entry = self._ledger.get(network_id)
        assert entry is not None, "an endpoint of a network that was asked for"
        self._ledger.put(entry.with_endpoint(endpoint))
        return endpoint


def _endpoint_id(network_id: str, sandbox_id: str) -> str:
    """64 digits, as plugins expect."""
    return hashlib.sha256(f"{network_id}\0{sandbox_id}".encode()).hexdigest()


def _create_network(settings: Settings, entry: NetworkEntry) -> dict[str, object]:
    if entry.pools:
        found = [(pool.subnet, pool.gateway) for pool in entry.pools]
    else:
        gateways = [*settings.gateways, *[""] * len(settings.subnets)]
        lengths = [subnet.partition("/")[2] for subnet in settings.subnets]
        given = zip(settings.subnets, gateways, lengths, strict=False)
        found = [(subnet, f"{gateway}/{length}" if gateway else "") for subnet, gateway, length in given]
    data = [
        {"AddressSpace": "", "Pool": subnet, "Gateway": gateway, "AuxAddresses": _named(settings, subnet)}
        for subnet, gateway in found
    ]
    return {
        "NetworkID": settings.network_id,
        "Options": {protocol.GENERIC_OPTIONS: settings.options, protocol.ENABLE_IPV6: settings.ipv6},
        "IPv4Data": [one for one in data if ":" not in str(one["Pool"])],
        "IPv6Data": [one for one in data if ":" in str(one["Pool"])],
    }


def _named(settings: Settings, subnet: str) -> dict[str, str]:
    whole = ip_network(subnet)
    return {
        name: f"{text}/{whole.prefixlen}"
        for name, text in settings.auxiliary_addresses.items()
        if ip_interface(text).ip in whole
    }


def _interface(addresses: tuple[str, ...]) -> dict[str, str]:
    first = {":" in address: address for address in reversed(addresses)}
    return {"Address": first.get(False, ""), "AddressIPv6": first.get(True, ""), "MacAddress": ""}

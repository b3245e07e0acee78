"""This host's place on the ingress network: its own device there, and the ports it answers on.

The device exists while this host has an address on the ingress network and a port to serve. Which rules that makes is
the publisher's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from .checks import check_ingress
from .ground import Ground
from .ingress_device import NO_RETURNS, IngressDevice
from .networks import Networks
from .publisher import Publisher
from .records import IngressRecord, Records
from .refusals import kernel_errors
from .types import IngressPort

HOST_USER = "@host"
"""Stands for this host itself among the users of the ingress network; no sandbox id begins with @."""


class Ingress:
    """Owned by `OverlayHost`. `follow_ipv6`: our device may be the first with an IPv6 address on this host."""

    def __init__(
        self,
        ground: Ground,
        records: Records,
        networks: Networks,
        publisher: Publisher,
        follow_ipv6: Callable[[], Awaitable[None]],
    ) -> None:
        self._ground = ground
        self._records = records
        self._networks = networks
        self._publisher = publisher
        self._follow_ipv6 = follow_ipv6
        self._device = IngressDevice(ground)
        self._lock = asyncio.Lock()
        self._returns = NO_RETURNS
        """As last written."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """This host's own on the ingress network; none while it needs no device there."""
        record = self._publisher.ingress
        return record.addresses if record.ports and self._networks.ingress() is not None else ()

    @property
    def name(self) -> str:
        return self._device.name

    async def set(self, node_ingress_addresses: tuple[str, ...], ports: tuple[IngressPort, ...]) -> None:
        """Answer on these ports. Ports that somebody else has are refused together, after the others work."""
        check_ingress(node_ingress_addresses, ports)
        record = IngressRecord(addresses=tuple(node_ingress_addresses), ports=tuple(ports))
        self._records.save_ingress(record)
        await self.apply(record)
        conflict = self._publisher.conflict()
        if conflict is not None:
            raise conflict

    async def apply(self, record: IngressRecord) -> None:
        async with self._lock:
            self._publisher.set_ingress(record)
            with kernel_errors("published ports"):
                await self._ensure_device(record)
                await self._follow_ipv6()
            await self._publisher.sync()

    async def again(self) -> None:
        """The ingress network's table changed: what is published stays the same."""
        await self.apply(self._publisher.ingress)

    async def heed(self) -> None:
        """The ingress network's table changed a little: other tasks, rarely other nodes."""
        if self._publisher.returns() == self._returns:
            await self._publisher.sync()
        else:
            await self.again()

    async def odd_returns(self) -> list[str]:
        """What is not as wanted of the way back to other nodes. Changes nothing."""
        async with self._lock:
            if not self.addresses:
                return []
            found = await self._ground.threads.run(partial(self._device.odd_returns, self._publisher.returns()))
        return [f"device {self.name}: {what} is to be done" for what in found]

    async def verify(self) -> list[str]:
        async with self._lock:
            return await self._ensure_device(self._publisher.ingress)

    async def _ensure_device(self, record: IngressRecord) -> list[str]:
        """This host is on the ingress network while it has an address there and ports to serve."""
        network, threads = self._networks.ingress(), self._ground.threads
        if network is not None and record.addresses and record.ports:
            devices = await self._networks.use(network, HOST_USER)
            self._returns = self._publisher.returns()
            return await threads.run(partial(self._device.ensure, devices, record.addresses, self._returns))
        self._returns = NO_RETURNS
        await threads.run(self._device.remove)
        if network is not None:
            await self._networks.release(network, HOST_USER)
        return []

    def remove_device(self) -> None:
        """Blocking."""
        self._device.remove()

"""Brings networks and sandboxes that are up to another MTU of the underlay, or to IPv6, without interrupting traffic.

Looks when a table tells of a node that was not known, and when somebody says that the host's links or routes changed.
Which MTU holds, `underlay` decides; a network with an MTU of its own (`com.docker.network.driver.mtu`) keeps it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

from pyswarm_common.addresses import family_name

from .ground import Ground
from .ingress import Ingress
from .networks import Networks
from .refusals import kernel_errors
from .sandboxes import Sandboxes

log = logging.getLogger(__name__)

_MAX_TOLD = 10_000


class Following:
    """Owned by `OverlayHost`."""

    def __init__(self, ground: Ground, networks: Networks, sandboxes: Sandboxes, ingress: Ingress) -> None:
        self._ground = ground
        self._networks = networks
        self._sandboxes = sandboxes
        self._ingress = ingress
        self._told: set[str] = set()
        """Peers of the other family that were told of."""

    async def heed(self, peers: Iterable[str]) -> None:
        """Peers that a table tells of: those that are new are looked at before anything is sent to them."""
        addresses = set(peers)
        self._tell_of_strangers(addresses)
        if self._ground.underlay.is_new(addresses):
            await self.look()

    def _tell_of_strangers(self, peers: set[str]) -> None:
        """Once for each."""
        own = self._ground.config.node_address
        for peer in self._ground.underlay.strangers(peers - self._told):
            log.warning(
                "containers here and on the node at %s cannot reach one another: this node's data path address %s is "
                "%s, that one's is %s; give both nodes a --data-path-addr of the same family",
                *(peer, own, family_name(own), family_name(peer)),
            )
            self._told.add(peer)
        if len(self._told) > _MAX_TOLD:
            self._told.clear()  # said again, rather than kept for ever

    async def look(self) -> bool:
        """Ask the kernel again; whether the MTU was changed."""
        await self._sandboxes.follow_ipv6()
        underlay = self._ground.underlay
        before = underlay.mtu
        if not await self._ground.threads.run(partial(underlay.look, self._networks.peers())):
            return False
        log.info(
            "packets between hosts may have %d bytes now (before: %d): overlay networks have an MTU of %d",
            *(underlay.mtu, before, underlay.overlay_mtu),
        )
        with kernel_errors("the MTU of this host's networks"):
            await self._apply()
        return True

    async def _apply(self) -> None:
        for network in self._networks.all():
            async with network.lock:
                if network.devices is not None:
                    await self._ground.threads.run(network.devices.adjust_mtu)
        await self._ingress.verify()
        for sandbox_id in self._sandboxes.ids():
            await self._sandboxes.verify(sandbox_id)

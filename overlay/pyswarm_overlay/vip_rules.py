"""Writes and checks a sandbox's rules for VIPs, and how long idle connections are remembered. Blocking.

Both are written in one transaction when a sandbox is made. Later each is written only where a listing differs: removing
the tables of the times would take the times from connections that exist. `core.nft_wire` and `core.nft_timeouts` say
what the rules are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from .core import names, nft_attributes, nft_timeouts, nft_wire, rules
from .kernel import nft, nft_tables
from .kernel.netlink import Netlink


@dataclass(frozen=True, slots=True)
class VipRules:
    """What one sandbox's rules should be. `table` is the name of the VIPs' table of each family."""

    table: str
    seed: str
    vips: Mapping[str, tuple[str, ...]]
    dns_ports: tuple[int, int]
    ipv6: bool

    def vip_parts(self, *, fresh: bool) -> list[nft_wire.Part]:
        return nft_wire.sandbox_table(self.table, self.seed, self.vips, self.dns_ports, fresh=fresh, ipv6=self.ipv6)

    def timeout_parts(self, *, fresh: bool) -> list[nft_wire.Part]:
        return nft_timeouts.timeout_tables(names.timeout_table(self.table), ipv6=self.ipv6, fresh=fresh)

    def write(self, netfilter: Netlink) -> None:
        """Into a namespace without rules."""
        parts = [*self.timeout_parts(fresh=True), *self.vip_parts(fresh=True)]
        netfilter.run_batch(partial(nft_wire.batch, parts))

    def repair(self, netfilter: Netlink) -> bool:
        """In the namespace of the calling thread; whether anything had to be written."""
        differ = [self._vips_differ(), self._timeouts_differ()]
        for is_wrong, parts in zip(differ, (self.vip_parts, self.timeout_parts), strict=True):
            if is_wrong:
                netfilter.run_batch(partial(nft_wire.batch, parts(fresh=False)))
        return any([*differ, self._remove_ipv6(netfilter)])

    def _remove_ipv6(self, netfilter: Netlink) -> bool:
        """Of a sandbox that has no IPv6 network any more; whether there was anything."""
        tables = () if self.ipv6 else (self.table, names.timeout_table(self.table))
        left = [table for table in tables if nft_tables.has_table(netfilter, nft_attributes.IPV6, table)]
        for table in left:
            parts = nft_wire.without_ipv6_table(table)
            netfilter.run_batch(partial(nft_wire.batch, parts))
        return bool(left)

    def _vips_differ(self) -> bool:
        """Compared by what they do: the chains, their targets and the number of rules."""
        families = nft_timeouts.families(ipv6=self.ipv6)
        try:
            found = nft.run([command for family in families for command in rules.list_table(self.table, family)])
        except nft.NftRefused:
            return True
        wanted = rules.wanted_sandbox(self.seed, self.vips, self.dns_ports, ipv6=self.ipv6)
        return rules.observed_sandbox(found) != wanted

    def _timeouts_differ(self) -> bool:
        table = names.timeout_table(self.table)
        try:
            found = [nft.run(rules.list_table(table, family)) for family in nft_timeouts.families(ipv6=self.ipv6)]
        except nft.NftRefused:
            return True
        return not all(nft_timeouts.is_listed(listing) for listing in found)

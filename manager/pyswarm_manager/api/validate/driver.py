"""Which driver a network may have, who gives out its addresses, and what goes with what.

Whether a node has a driver that is not ours is asked where the network is made (`check_plugins`): it may come and go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pyswarm_common.errors import NotFound
from pyswarm_common.model import NetworkSpec, Node
from pyswarm_common.network_options import BUILT_IN, DEFAULT_IPAM, OVERLAY
from pyswarm_manager.api.validate.fields import Violation, check_count, shown

NO_IPAM = "null"
_SINGLE = frozenset({"host", "none", "null"})
_PLUGIN = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-/:]{0,127}")
_MAX_IPAM_OPTIONS = 64


def check_driver(spec: NetworkSpec) -> Iterator[Violation]:
    driver = spec.driver or OVERLAY
    if spec.config_only:
        yield "config_only", "a configuration-only network is its node's own: create it on each node (--config-only)"
    elif driver in _SINGLE:
        yield "driver", f'only one instance of "{driver}" network is allowed: every node has it already'
    elif not _PLUGIN.fullmatch(driver):
        yield "driver", f"invalid network driver {shown(driver)}: it must be the name of a driver or plugin"
    if spec.ingress and driver != OVERLAY:
        yield "ingress", f"the ingress network cannot have driver {shown(driver)}: it must be an overlay"
    yield from _check_ipam(spec, driver)
    yield from _check_config_from(spec, driver)


def _check_ipam(spec: NetworkSpec, driver: str) -> Iterator[Violation]:
    is_plain = spec.ipam_driver in ("", DEFAULT_IPAM)
    if spec.ipam_options and is_plain:
        yield "ipam_options", "IPAM options go with an IPAM driver: name one with --ipam-driver"
    yield from check_count(tuple(spec.ipam_options), _MAX_IPAM_OPTIONS, "ipam_options", "IPAM options")
    if is_plain:
        return
    if driver == OVERLAY:
        yield "ipam_driver", "overlay networks have the default IPAM driver: their addresses are the whole cluster's"
    elif spec.ipam_driver == NO_IPAM:
        yield "ipam_driver", f"the IPAM driver {NO_IPAM} is not supported: containers need addresses"
    elif not _PLUGIN.fullmatch(spec.ipam_driver):
        yield "ipam_driver", f"invalid IPAM driver {shown(spec.ipam_driver)}: it must be the name of a plugin"


def _check_config_from(spec: NetworkSpec, driver: str) -> Iterator[Violation]:
    if not spec.config_from:
        return
    if driver == OVERLAY:
        yield "config_from", "an overlay network is one for all nodes: it cannot take its configuration from each"
    given = (spec.subnets, spec.gateways, spec.ip_ranges, spec.auxiliary_addresses, spec.options, spec.ipam_options)
    if any(given) or spec.ipam_driver not in ("", DEFAULT_IPAM) or spec.ipv6:
        yield (
            "config_from",
            "user specified configurations are not supported if the network depends on a configuration network",
        )


def check_plugins(spec: NetworkSpec, nodes: Iterable[Node]) -> None:
    """Refuse drivers that no node has. Raises NotFound."""
    wanted = [("Network", spec.driver)] if spec.driver and spec.driver not in BUILT_IN else []
    if spec.ipam_driver not in ("", DEFAULT_IPAM):
        wanted.append(("Ipam", spec.ipam_driver))
    if not wanted:
        return
    known = {(plugin.type, plugin.name) for node in nodes for plugin in node.description.plugins}
    for kind, name in wanted:
        if (kind, name) not in known:
            raise NotFound(f"could not find plugin {name} in v1 plugin registry: plugin not found on any node")

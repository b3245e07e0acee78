"""The specification of a network from the options of `network create`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyswarm.v1 import types_pb2
from pyswarm_cli.parse.pairs import mapping
from pyswarm_common.errors import InvalidArgument

DEFAULT_DRIVER = "overlay"
_NOT_OF_ONE_NODE = (
    "configuration network can only contain network specific fields. Network operator fields like "
    "[ ingress | internal | attachable | scope ] are not supported."
)


def network_spec(name: str, given: Mapping[str, Any]) -> types_pb2.NetworkSpec:
    """`given`: the options by their parameter names."""
    is_config = given["config_only"]
    scope, driver = given["scope"] or ("local" if is_config else "swarm"), given["driver"]
    if is_config and (scope == "swarm" or given["internal"] or given["attachable"] or given["ingress"]):
        raise InvalidArgument(_NOT_OF_ONE_NODE)
    if is_config and given["config_from"]:
        raise InvalidArgument("a configuration network cannot depend on another configuration network")
    if scope == "local" and not is_config:
        raise InvalidArgument(
            "networks of one node alone are configuration-only ones: leave --scope local out, or add --config-only"
        )
    if not given["ipv4"] and not all(":" in subnet for subnet in given["subnet"] or ("",)):
        raise InvalidArgument("a network without IPv4 needs --subnet with an IPv6 one, and none of IPv4")
    return types_pb2.NetworkSpec(
        name=name,
        labels=mapping(given["label"], "label"),
        driver="" if is_config else driver or DEFAULT_DRIVER,
        subnets=given["subnet"],
        gateways=_gateways(given["gateway"]),
        ip_ranges=given["ip_range"],
        auxiliary_addresses=mapping(given["aux_address"], "auxiliary address"),
        ipv6=bool(given["ipv6"] and given["ipv4"]),  # with IPv6 subnets alone, that is all the network has
        internal=given["internal"],
        attachable=given["attachable"],
        ingress=given["ingress"],
        options=mapping(given["opt"], "option"),
        ipam_driver="" if given["ipam_driver"] == "default" else given["ipam_driver"],
        ipam_options=mapping(given["ipam_opt"], "IPAM option"),
        config_only=is_config,
        config_from=given["config_from"],
    )


def _gateways(texts: tuple[str, ...]) -> tuple[str, ...]:
    """As they are given: each goes with the subnet in its place."""
    return tuple(text.strip() for text in texts)

"""Networks of the machine whose daemon is asked: predefined and configuration-only ones, beside those of the swarm.

Over TCP only the swarm is asked: what is on one machine is that machine's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyswarm.v1 import localnet_pb2
from pyswarm_cli.connection import Connection, call


def local_networks(connection: Connection) -> list[Any]:
    if connection.is_remote:
        return []
    return list(call(connection.local_networks.ListLocalNetworks, localnet_pb2.ListLocalNetworksRequest()).networks)


def find_local(connection: Connection, reference: str) -> Any | None:
    """By id, name, or the beginning of an id that only one has."""
    known = local_networks(connection)
    exact = [network for network in known if reference in (network.id, network.spec.name)]
    found = exact or [network for network in known if reference and network.id.startswith(reference)]
    return found[0] if len(found) == 1 else None


def passes(network: Any, wanted: Mapping[str, Sequence[str]]) -> bool:
    """The filters that managers apply to theirs."""
    labels = dict(network.spec.labels)
    return (
        _any(wanted.get("id"), network.id.startswith)
        and _any(wanted.get("name"), lambda text: text in network.spec.name)
        and all(_has_label(labels, text) for text in wanted.get("label", ()))
    )


def _any(texts: Sequence[str] | None, fits: Any) -> bool:
    return not texts or any(fits(text) for text in texts)


def _has_label(labels: Mapping[str, str], text: str) -> bool:
    key, has_value, value = text.partition("=")
    return key in labels and (not has_value or labels[key] == value)

"""Whom a service may let in: names that services can have, "ingress", or "none" alone.

A name that no service has yet is no mistake: services may be made in any order. It lets nobody in until there is one.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyswarm_common.model import PortConfig, PublishMode, ServiceSpec
from pyswarm_manager.api.validate.fields import Violation, check_count, check_name, shown, under
from pyswarm_manager.store.tables import NODE_NETWORKS

MAX_SOURCES = 256
NOBODY = "none"


def check_policy(spec: ServiceSpec) -> Iterator[Violation]:
    """Each source once; and nothing for tasks that have no network of their own."""
    sources = spec.endpoint.allow_from
    yield from check_count(sources, MAX_SOURCES, "allow_from", "sources")
    for index, source in enumerate(sources[:MAX_SOURCES]):
        yield from under(f"allow_from[{index}]", check_name(source))
        if source in sources[:index]:
            yield f"allow_from[{index}]", f"source {shown(source)} is named twice"
    if NOBODY in sources and len(sources) > 1:
        yield "allow_from", f"conflicting options: allow-from {NOBODY} goes with no other source"
    if sources and not spec.task.networks and not any(_is_ingress(port) for port in spec.endpoint.ports):
        yield "allow_from", "allow-from needs a network, or a port published in ingress mode: add one with --network"
    if sources and any(attachment.target in NODE_NETWORKS for attachment in spec.task.networks):
        yield (
            "allow_from",
            "conflicting options: allow-from and the host network, where the host's own firewall decides",
        )


def _is_ingress(port: PortConfig) -> bool:
    return port.publish_mode is PublishMode.INGRESS

"""Whether a machine that joins could exchange overlay traffic with anybody: a tunnel has one family at both ends.

Pure. A cluster whose nodes already have both families is being moved from one to the other: nobody is refused then, and
each node says itself which peers it cannot reach.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm_common.addresses import family_name, is_ipv6
from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.model import Node, NodeState


def require_common_family(address: str, nodes: Iterable[Node]) -> None:
    """Raises FailedPrecondition if every node has a data path address of the other family."""
    other: Node | None = None
    for node in nodes:
        theirs = _address_of(node)
        if not theirs or node.status.state is NodeState.DOWN:
            continue
        if is_ipv6(theirs) == is_ipv6(address):
            return
        other = node
    if other is not None:
        raise FailedPrecondition(
            f"this machine's data path address {address} is {family_name(address)}, but the nodes of this swarm reach "
            f"one another over {family_name(_address_of(other))} ({other.description.hostname or other.id} at "
            f"{_address_of(other)}): join with --data-path-addr and one of its {family_name(_address_of(other))} "
            "addresses"
        )


def _address_of(node: Node) -> str:
    return node.description.data_path_address or node.status.address

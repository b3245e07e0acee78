"""The first objects of a new cluster: its cluster object, its first node and the ingress network.

The daemon leaves them in a file at `init`; the first leader commits them and deletes it. Every step may be repeated
after a crash: what is committed already is left alone. The planner acts next: it gives the ingress network its subnet.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from pyswarm_common.documents import Malformed, decode_msgpack
from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.files import write_private
from pyswarm_common.ids import IdSource
from pyswarm_common.model import Cluster, Network, NetworkSpec, Node
from pyswarm_manager.store.audit import by_local_root
from pyswarm_manager.store.changes import Change, Create
from pyswarm_manager.store.recording import asking
from pyswarm_manager.store.store import Store
from pyswarm_manager.store.tables import Tables

INGRESS_NAME = "ingress"


class Bootstrap(msgspec.Struct, frozen=True):
    """What `init` decided. The cluster object holds the root key: its file is for its owner only."""

    cluster: Cluster
    node: Node

    @classmethod
    def load(cls, path: Path) -> Bootstrap | None:
        """None if there is nothing (more) to bootstrap."""
        try:
            return decode_msgpack(path.read_bytes(), cls)
        except FileNotFoundError:
            return None
        except Malformed as error:
            raise FailedPrecondition(f"{path} is damaged ({error}): leave the swarm and run init again") from error

    def save(self, path: Path) -> None:
        """Write it, for the first start of the manager."""
        write_private(path, msgspec.msgpack.encode(self))


def missing_changes(view: Tables, bootstrap: Bootstrap, new_id: IdSource) -> list[Change]:
    """What of the bootstrap is not in the store yet. Raises FailedPrecondition if the store is another cluster's."""
    cluster = view.cluster
    if cluster is not None and cluster.id != bootstrap.cluster.id:
        raise FailedPrecondition("this state directory holds another cluster: leave it first")
    changes: list[Change] = []
    if cluster is None:
        changes.append(Create(bootstrap.cluster))
    if bootstrap.node.id not in view.nodes:
        changes.append(Create(bootstrap.node))
    if not any(network.spec.ingress for network in view.networks.values()):
        spec = NetworkSpec(name=INGRESS_NAME, driver="overlay", ingress=True)
        changes.append(Create(Network(id=new_id(), spec=spec)))
    return changes


async def commit_bootstrap(store: Store, path: Path, new_id: IdSource) -> None:
    """On the leader: commit what the file holds and is missing, then delete the file."""
    bootstrap = Bootstrap.load(path)
    if bootstrap is None:
        return
    changes = missing_changes(store.view, bootstrap, new_id)
    if changes:
        with asking(by_local_root("Daemon/Init")):
            await store.propose(changes)
    _forget(path)


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)

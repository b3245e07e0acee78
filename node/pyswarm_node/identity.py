"""The node's identity while the daemon runs: the one on disk, replaced as a whole when it is renewed."""

from __future__ import annotations

from pathlib import Path

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.identity import NodeIdentity


class CurrentIdentity:
    """Call it for the identity of the moment."""

    def __init__(self, directory: Path, identity: NodeIdentity) -> None:
        self._directory = directory
        self._identity = identity

    @classmethod
    def load(cls, directory: Path) -> CurrentIdentity:
        identity = NodeIdentity.load(directory)
        if identity is None:
            raise FailedPrecondition(
                f"the node's certificate is missing in {directory}: leave the swarm and join again"
            )
        return cls(directory, identity)

    def __call__(self) -> NodeIdentity:
        return self._identity

    def replace(self, identity: NodeIdentity) -> None:
        """On disk first, so that a manager that is told to reload finds it."""
        identity.save(self._directory)
        self._identity = identity

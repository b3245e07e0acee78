"""The manager's identity while it runs: read at the start, read again when the daemon says that it was renewed.

Whoever opens a channel asks for the identity of the moment. The gRPC server asks at each handshake, so a new
certificate needs no restart and breaks no stream.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import grpc
from cryptography import x509

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.identity import NodeIdentity, ServedIdentity, key_from_pem
from pyswarm_common.identity.locks import LockKey
from pyswarm_common.model import NodeRole


class LiveIdentity:
    """Call it for the identity as it is now."""

    def __init__(self, directory: Path, master: LockKey | None = None) -> None:
        self._directory = directory
        self.master = master
        """Opens the key where autolock has locked it."""
        self._identity = _load(directory, master)
        self._served = ServedIdentity(self._identity)

    def __call__(self) -> NodeIdentity:
        return self._identity

    def reload(self) -> None:
        """Take what the files say now. Raises FailedPrecondition, and keeps the old, if that is not a manager's."""
        self._identity = _load(self._directory, self.master)
        self._served.replace(self._identity)

    def adopt(self, certificate: bytes, roots: bytes) -> None:
        """A new certificate for the present key."""
        replace(self._identity, cert_pem=certificate, root_cert_pem=roots).save_certificate(self._directory)
        self.reload()

    def server_credentials(self) -> grpc.ServerCredentials:
        """Demand a certificate of a trusted root from every client; follow `reload`."""
        return self._served.credentials()


def _load(directory: Path, master: LockKey | None) -> NodeIdentity:
    identity = NodeIdentity.load(directory)
    if identity is None:
        raise FailedPrecondition(f"no node certificate in {directory}: run `pyswarm init` or `pyswarm join`")
    identity = identity.unlocked(master)
    if identity.role is not NodeRole.MANAGER:
        raise FailedPrecondition("the certificate of this node is a worker's: promote the node, then start its manager")
    if x509.load_pem_x509_certificate(identity.cert_pem).public_key() != key_from_pem(identity.key_pem).public_key():
        raise FailedPrecondition(
            f"the key in {directory} is not that of the certificate: leave the swarm and join again"
        )
    return identity

"""The manager's identity while it runs: read at the start, read again when the daemon says that it was renewed.

Whoever opens a channel asks for the identity of the moment. The gRPC server asks at each handshake, so a new
certificate needs no restart and breaks no stream.
"""

from __future__ import annotations

from pathlib import Path

import grpc
from cryptography import x509

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.identity import NodeIdentity, key_from_pem
from pyswarm_common.model import NodeRole


class LiveIdentity:
    """Call it for the identity as it is now."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._identity = _load(directory)
        self._served = self._configuration()

    def __call__(self) -> NodeIdentity:
        return self._identity

    def reload(self) -> None:
        """Take what the files say now. Raises FailedPrecondition, and keeps the old, if that is not a manager's."""
        self._identity = _load(self._directory)
        self._served = self._configuration()

    def server_credentials(self) -> grpc.ServerCredentials:
        """Demand a certificate of the same root from every client; follow `reload`."""
        served = [self._served]

        def newer() -> grpc.ServerCertificateConfiguration | None:
            if served[0] is self._served:
                return None
            served[0] = self._served
            return served[0]

        # The stubs forget that None means "as before".
        return grpc.dynamic_ssl_server_credentials(self._served, newer, True)  # type: ignore[arg-type]

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        identity = self._identity
        return grpc.ssl_server_certificate_configuration(
            [(identity.key_pem, identity.cert_pem)], root_certificates=identity.root_cert_pem
        )


def _load(directory: Path) -> NodeIdentity:
    identity = NodeIdentity.load(directory)
    if identity is None:
        raise FailedPrecondition(f"no node certificate in {directory}: run `pyswarm init` or `pyswarm join`")
    if identity.role is not NodeRole.MANAGER:
        raise FailedPrecondition("the certificate of this node is a worker's: promote the node, then start its manager")
    if x509.load_pem_x509_certificate(identity.cert_pem).public_key() != key_from_pem(identity.key_pem).public_key():
        raise FailedPrecondition(
            f"the key in {directory} is not that of the certificate: leave the swarm and join again"
        )
    return identity

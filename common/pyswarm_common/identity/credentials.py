"""A node's identity: its key, its certificate and the root it trusts, on disk and as gRPC credentials."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.x509.oid import NameOID

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.files import write_private
from pyswarm_common.identity.locks import LockKey, is_locked, locked, unlocked
from pyswarm_common.model import NodeRole
from pyswarm_common.server_names import ROLE_NAMES

_CERT_FILE, _KEY_FILE, _ROOT_FILE = "node.crt", "node.key", "root-ca.crt"


@dataclass(frozen=True, slots=True, repr=False)
class NodeIdentity:
    """What a node proves itself with. All PEM."""

    cert_pem: bytes
    """Its own certificate, then what leads from it to the root."""
    key_pem: bytes
    root_cert_pem: bytes
    """Every root it trusts: two while the cluster's root is being replaced."""

    @classmethod
    def load(cls, directory: Path) -> NodeIdentity | None:
        """The identity kept in the directory; None if there is none yet."""
        try:
            parts = [(directory / name).read_bytes() for name in (_CERT_FILE, _KEY_FILE, _ROOT_FILE)]
        except FileNotFoundError:
            return None
        return cls(*parts)

    def save(self, directory: Path) -> None:
        """Write the three files, each atomically and readable only by its owner; the certificate last."""
        for name, content in ((_ROOT_FILE, self.root_cert_pem), (_KEY_FILE, self.key_pem), (_CERT_FILE, self.cert_pem)):
            write_private(directory / name, content)

    def save_certificate(self, directory: Path) -> None:
        """Write a new certificate for the key that is there already, which may lie locked."""
        for name, content in ((_ROOT_FILE, self.root_cert_pem), (_CERT_FILE, self.cert_pem)):
            write_private(directory / name, content)

    @property
    def is_locked(self) -> bool:
        """Its key is as autolock leaves it on the disk."""
        return is_locked(self.key_pem)

    def locked(self, key: LockKey | None) -> NodeIdentity:
        """As it is to lie on the disk: as it is without a key."""
        return replace(self, key_pem=locked(self.key_pem, _KEY_FILE, key))

    def unlocked(self, key: LockKey | None) -> NodeIdentity:
        """Fit for use. Raises Locked without a key where one is needed, WrongKey if it is another."""
        return replace(self, key_pem=unlocked(self.key_pem, _KEY_FILE, key))

    @property
    def node_id(self) -> str:
        return self._name(NameOID.COMMON_NAME)

    @property
    def cluster_id(self) -> str:
        return self._name(NameOID.ORGANIZATION_NAME)

    @property
    def role(self) -> NodeRole:
        unit = self._name(NameOID.ORGANIZATIONAL_UNIT_NAME)
        return next(role for role, name in ROLE_NAMES.items() if name == unit)

    @property
    def validity(self) -> tuple[float, float]:
        """(not before, not after) in unix seconds."""
        cert = x509.load_pem_x509_certificate(self.cert_pem)
        return cert.not_valid_before_utc.timestamp(), cert.not_valid_after_utc.timestamp()

    def server_credentials(self) -> grpc.ServerCredentials:
        """Demands a certificate of the same root from every client."""
        return grpc.ssl_server_credentials(
            [(self.key_pem, self.cert_pem)], root_certificates=self.root_cert_pem, require_client_auth=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            root_certificates=self.root_cert_pem, private_key=self.key_pem, certificate_chain=self.cert_pem
        )

    def _name(self, oid: x509.ObjectIdentifier) -> str:
        return _subject_name(self.cert_pem, oid)


@functools.lru_cache(maxsize=256)
def _subject_name(cert_pem: bytes, oid: x509.ObjectIdentifier) -> str:
    """Remembered, since it is asked for with every call that changes something."""
    values = x509.load_pem_x509_certificate(cert_pem).subject.get_attributes_for_oid(oid)
    if len(values) != 1:
        raise FailedPrecondition("the node certificate was not issued by a pyswarm cluster: leave, then join again")
    return str(values[0].value)


class ServedIdentity:
    """What a gRPC server shows and trusts; asked at each handshake, so it changes without breaking a stream."""

    def __init__(self, identity: NodeIdentity) -> None:
        self._served = _configuration(identity)

    def replace(self, identity: NodeIdentity) -> None:
        """For new connections from now on."""
        self._served = _configuration(identity)

    def credentials(self) -> grpc.ServerCredentials:
        """Demand a certificate of a trusted root from every client; follow `replace`."""
        served = [self._served]

        def newer() -> grpc.ServerCertificateConfiguration | None:
            if served[0] is self._served:
                return None
            served[0] = self._served
            return served[0]

        # The stubs forget that None means "as before".
        return grpc.dynamic_ssl_server_credentials(self._served, newer, True)  # type: ignore[arg-type]


def _configuration(identity: NodeIdentity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(identity.key_pem, identity.cert_pem)], root_certificates=identity.root_cert_pem
    )

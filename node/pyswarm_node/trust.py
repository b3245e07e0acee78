"""What the managers want of this node's trust and certificate while the cluster's root is being replaced.

Decides whether there are other roots to trust, and whether a new certificate is to be fetched; the role loop does it.
The managers ask for a certificate of a certain CA. If they have gone on to another CA meanwhile, that one's certificate
answers the old question as well: it is not asked again, or the node would renew for ever.
"""

from __future__ import annotations

from dataclasses import replace

from pyswarm_common.identity import NodeIdentity, issuer_of, read_bundle
from pyswarm_common.model import Node


class TrustWishes:
    """Lives as long as the membership."""

    def __init__(self) -> None:
        self._roots = b""
        self._answered = ""

    def on_roots(self, roots: bytes) -> None:
        """The managers trust these now (PEM)."""
        self._roots = roots

    def has_new_roots(self, identity: NodeIdentity) -> bool:
        return bool(self._roots) and self._roots != identity.root_cert_pem

    def with_new_roots(self, identity: NodeIdentity) -> NodeIdentity:
        """The identity that trusts what the managers trust. Raises InvalidArgument if that is no certificate."""
        roots, self._roots = self._roots, b""
        read_bundle(roots)
        return replace(identity, root_cert_pem=roots)

    def is_asked_to_renew(self, identity: NodeIdentity, node: Node | None) -> bool:
        """Whether a certificate of another CA is wanted than this one's."""
        wanted = "" if node is None else node.certificate.renew_from
        return wanted not in ("", self._answered) and wanted != issuer_of(identity.cert_pem)

    def renewed(self, before: NodeIdentity, after: NodeIdentity, node: Node | None) -> None:
        """A new certificate came, with the roots of that moment."""
        self._roots = b""
        if issuer_of(after.cert_pem) != issuer_of(before.cert_pem):
            self._answered = "" if node is None else node.certificate.renew_from

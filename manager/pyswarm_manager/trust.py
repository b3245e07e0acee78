"""Which CA signs now, and which roots are trusted, as the cluster object says. Pure.

While the root is being replaced, new certificates are signed by the new one and carry the bridge to the old one, so
that nodes which trust only the old root believe them; and every certificate that is given away comes with both roots.
"""

from __future__ import annotations

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.identity import RootAuthority, bundle, root_digest
from pyswarm_common.model import Cluster


def present_authority(cluster: Cluster) -> RootAuthority:
    """The root that every node trusts."""
    return RootAuthority(cluster.root_ca_cert, cluster.root_ca_key, cluster.root_ca_chain)


def signing_authority(cluster: Cluster) -> RootAuthority:
    """Who signs certificates now. Raises FailedPrecondition if no key is here to sign with."""
    rotation = cluster.root_rotation
    if rotation is not None:
        bridge = bundle(rotation.cross_signed_cert, cluster.root_ca_chain)
        return RootAuthority(rotation.root_ca_cert, rotation.root_ca_key, rotation.root_ca_chain, bridge)
    if not cluster.root_ca_key:
        raise FailedPrecondition("this cluster's root key is kept elsewhere: no certificate can be issued here")
    return present_authority(cluster)


def trusted_roots(cluster: Cluster) -> bytes:
    """Every root to trust (PEM), the present one first."""
    rotation = cluster.root_rotation
    return cluster.root_ca_cert if rotation is None else bundle(cluster.root_ca_cert, rotation.root_ca_cert)


def token_root(cluster: Cluster) -> bytes:
    """The root that new join tokens name: the one that stays."""
    return cluster.root_ca_cert if cluster.root_rotation is None else cluster.root_rotation.root_ca_cert


def known_digests(cluster: Cluster) -> frozenset[str]:
    """Digests that join tokens of this cluster may name now."""
    return frozenset(root_digest(root) for root in (cluster.root_ca_cert, token_root(cluster)))

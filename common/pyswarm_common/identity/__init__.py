"""Who is who: node keys and certificates, the root CA, join tokens, and the mTLS credentials made from them.

Decides the form of certificates (ECDSA P-256; CN = node id, OU = swarm-manager or swarm-worker, O = cluster id) and of
join tokens (`SWMTKN-1-<root digest>-<secret>`). Never decides who may do what: that is the table of each server, held
by `pyswarm_common.rpc`. Time comes in as an argument.
"""

from pyswarm_common.identity.authority import RootAuthority, generate_key, key_from_pem, key_to_pem, make_csr
from pyswarm_common.identity.credentials import NodeIdentity, ServedIdentity
from pyswarm_common.identity.roots import bundle, issuer_of, read_authority, read_bundle, roots_of
from pyswarm_common.identity.tokens import JoinToken, root_digest
from pyswarm_common.server_names import NODE_SERVER_NAME, role_name

__all__ = [
    "NODE_SERVER_NAME",
    "JoinToken",
    "NodeIdentity",
    "RootAuthority",
    "ServedIdentity",
    "bundle",
    "generate_key",
    "issuer_of",
    "key_from_pem",
    "key_to_pem",
    "make_csr",
    "read_authority",
    "read_bundle",
    "role_name",
    "root_digest",
    "roots_of",
]

"""TLS 1.3 and nothing older, for gRPC too.

gRPC has no setting in Python for the oldest version it speaks, but one for the ciphers of TLS 1.2 and older, which it
reads from the environment when it is imported. `require_tls13` leaves it one cipher, of pre-shared keys, which nobody
here has: a handshake in TLS 1.2 finds no cipher in common and fails. TLS 1.3's own ciphers are not touched by it.

Call it before gRPC is imported: the packages of our programs do so first of all (their `__init__.py`).
"""

from __future__ import annotations

import os

_NEVER_AGREED_ON = "ECDHE-PSK-CHACHA20-POLY1305"


def require_tls13() -> None:
    """From now on, for this process; whatever the environment said before."""
    os.environ["GRPC_SSL_CIPHER_SUITES"] = _NEVER_AGREED_ON

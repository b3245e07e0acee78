"""An API token becomes a client certificate for an hour: one call over HTTPS, by the Connect protocol.

The manager must prove to be one of the given root's before the token is sent.
"""

from __future__ import annotations

import http.client
import socket
import ssl

from pyswarm_cli.failures import FromDaemon
from pyswarm_common import errors
from pyswarm_common.https_door import pinned, refusal
from pyswarm_common.model import NodeRole
from pyswarm_common.server_names import role_name

_PATH = "/pyswarm.v1.Access/ExchangeToken"
_TIMEOUT_S = 30.0
_MAX_ANSWER_BYTES = 256 * 1024


class _Connection(http.client.HTTPSConnection):
    """Verifies the manager's role instead of its address."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=_TIMEOUT_S, context=context)
        self._tls = context

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), timeout=_TIMEOUT_S)
        self.sock = self._tls.wrap_socket(plain, server_hostname=role_name(NodeRole.MANAGER))


def exchange(host: str, port: int, root_pem: bytes, token: str, request: bytes) -> bytes:
    """The answer's bytes. Raises FromDaemon for the manager's refusal, Unavailable or FailedPrecondition before one."""
    connection = _Connection(host, port, pinned(root_pem, "the file of --ca"))
    headers = {"Content-Type": "application/proto", "Authorization": f"Bearer {token}"}
    try:
        connection.request("POST", _PATH, request, headers)
        response = connection.getresponse()
        body = response.read(_MAX_ANSWER_BYTES)
    except ssl.SSLCertVerificationError as error:
        raise errors.FailedPrecondition(
            f"the manager at {host} does not prove to be one of this root's cluster: {error.verify_message}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "strerror", None) or error or type(error).__name__).lower()
        raise errors.Unavailable(f"could not reach a manager at {host}:{port} ({reason}): is the port open?") from None
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise FromDaemon(refusal(response.status, body, f"{host}:{port}"))
    return body

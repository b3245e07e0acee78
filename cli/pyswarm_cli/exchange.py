"""An API token becomes a client certificate for an hour: one call over HTTPS, by the Connect protocol.

The manager must prove to be one of the given root's before the token is sent.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from pathlib import Path
from typing import Any

from pyswarm_cli.failures import FromDaemon
from pyswarm_common import errors

_PATH = "/pyswarm.v1.Access/ExchangeToken"
_SERVER_NAME = "swarm-manager"
_TIMEOUT_S = 30.0
_MAX_ANSWER_BYTES = 256 * 1024
_MAX_TOKEN_BYTES = 1024
_MEANINGS = {name.lower(): meaning for meaning, name in errors.STATUS_NAMES.items()}


class _Connection(http.client.HTTPSConnection):
    """Verifies the manager's role instead of its address."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=_TIMEOUT_S, context=context)
        self._tls = context

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), timeout=_TIMEOUT_S)
        self.sock = self._tls.wrap_socket(plain, server_hostname=_SERVER_NAME)


def read_token(path: str, stdin: Any) -> str:
    """From a file, or ("-") from standard input; never from the command line, where others can see it."""
    data = stdin.read(_MAX_TOKEN_BYTES) if path == "-" else Path(path).read_bytes()[:_MAX_TOKEN_BYTES]
    try:
        token = data.decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise errors.InvalidArgument("that is no API token: give what `pyswarm token create` printed, and nothing else")
    return str(token)


def exchange(host: str, port: int, root_pem: bytes, token: str, request: bytes) -> bytes:
    """The answer's bytes. Raises FromDaemon for the manager's refusal, Unavailable or FailedPrecondition before one."""
    connection = _Connection(host, port, _pinned(root_pem))
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
        raise FromDaemon(_refusal(response.status, body))
    return body


def _pinned(root_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=root_pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise errors.InvalidArgument("the file of --ca holds no certificate in PEM form") from error
    return context


def _refusal(status: int, body: bytes) -> errors.PyswarmError:
    try:
        answer = json.loads(body)
        return _MEANINGS.get(answer["code"], errors.PyswarmError)(str(answer["message"]))
    except (ValueError, KeyError, TypeError):
        return errors.FailedPrecondition(f"that did not answer as a manager does (HTTP status {status})")

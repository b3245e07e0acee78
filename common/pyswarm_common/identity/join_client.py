"""The joining side: get the cluster's root certificate, pin it by the token's digest, then ask for a certificate.

The token is never sent before the root certificate was compared with the digest in it: `request_certificate` takes the
pinned root and verifies the manager against it. Speaks the Connect protocol's unary form over HTTPS, to the port after
the manager's gRPC port. All failures are `PyswarmError`s; answers are bounded in size and time.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from typing import TypeVar

import aiohttp
from google.protobuf.message import DecodeError, Message

from pyswarm.v1 import ca_pb2
from pyswarm_common import errors
from pyswarm_common.https_door import client_context, pinned, refusal
from pyswarm_common.identity.roots import roots_of
from pyswarm_common.identity.tokens import root_digest
from pyswarm_common.model import NodeRole
from pyswarm_common.server_names import role_name

DEFAULT_MANAGER_PORT = 2377
_CONNECT_TIMEOUT_S = 5.0
_TIMEOUT_S = 40.0
_MAX_ANSWER_BYTES = 256 * 1024
_LAST_PORT = 65535
_HOST_AND_PORT = re.compile(
    r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)

R = TypeVar("R", bound=Message)


def join_address(address: str) -> tuple[str, int]:
    """Where a manager's HTTPS door is: `host[:port]` names its gRPC port (2377), the door is the next one."""
    text = address.strip()
    found = _HOST_AND_PORT.fullmatch(text)
    if _is_ipv6(text):
        host, port = text, ""
    elif found is not None:
        host, port = found["ipv6"] or found["host"], found["port"] or ""
    else:
        host, port = "", ""
    is_host = bool(host) and (found is None or not found["ipv6"] or _is_ipv6(host))
    if not is_host or (port and not 0 < int(port) < _LAST_PORT):
        raise errors.InvalidArgument(f"invalid manager address {address!r}: it must have the form HOST[:PORT]")
    return host, int(port or DEFAULT_MANAGER_PORT) + 1


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


async def fetch_root_certificate(address: str, expected_digest: str) -> bytes:
    """The root certificate (PEM) of the manager's cluster, if it is the one the token names."""
    context = client_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is believed before the digest is compared
    request = ca_pb2.GetRootCertificateRequest()
    answer = await _call(address, "GetRootCertificate", request, ca_pb2.GetRootCertificateResponse, context)
    roots = [root for root in (answer.root_ca_cert, answer.next_root_ca_cert) if root]  # it may be being replaced
    try:
        pinned = [root for root in roots if root_digest(root) == expected_digest]
    except ValueError as error:
        raise errors.FailedPrecondition(f"{address} gave no root certificate: is it a manager?") from error
    if not roots:
        raise errors.FailedPrecondition(f"{address} gave no root certificate: is it a manager?")
    if not pinned:
        raise errors.FailedPrecondition(
            "remote CA does not match fingerprint: the join token belongs to another cluster than the manager "
            f"at {address}"
        )
    return pinned[0]


async def request_certificate(
    address: str, root_cert_pem: bytes, request: ca_pb2.IssueCertificateRequest
) -> ca_pb2.IssueCertificateResponse:
    """A certificate for the request's key, from a manager that proves to be one of the pinned root's."""
    context = pinned(root_cert_pem)
    answer = await _call(address, "IssueCertificate", request, ca_pb2.IssueCertificateResponse, context)
    if not _includes(answer.root_ca_cert, root_cert_pem):
        raise errors.FailedPrecondition(f"the manager at {address} answered with another root than the pinned one")
    return answer


def _includes(bundle: bytes, root_cert_pem: bytes) -> bool:
    """Whether the pinned root is among those that the manager tells to trust (two while it is being replaced)."""
    pinned = root_digest(root_cert_pem)
    try:
        return any(root_digest(root) == pinned for root in roots_of(bundle))
    except errors.InvalidArgument:
        return False


async def renew_expired(
    address: str, root_cert_pem: bytes, request: ca_pb2.RenewExpiredRequest
) -> ca_pb2.RenewCertificateResponse:
    """Another certificate for a node whose own has expired, from a manager that proves to be of the known root's."""
    context = pinned(root_cert_pem)
    return await _call(address, "RenewExpired", request, ca_pb2.RenewCertificateResponse, context)


async def _call(address: str, method: str, request: Message, answer_type: type[R], context: ssl.SSLContext) -> R:
    host, port = join_address(address)
    netloc = f"[{host}]" if ":" in host else host
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S, sock_connect=_CONNECT_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.post(
                f"https://{netloc}:{port}/pyswarm.v1.CA/{method}",
                data=request.SerializeToString(),
                headers={"Content-Type": "application/proto"},
                ssl=context,
                server_hostname=role_name(NodeRole.MANAGER),
                allow_redirects=False,
            ) as response,
        ):
            status, body = response.status, await _read(response.content, address)
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError) as error:
        raise errors.FailedPrecondition(
            f"the manager at {address} does not prove to be one of this cluster: {_reason(error)}"
        ) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise errors.Unavailable(
            f"could not reach a manager at {netloc}:{port - 1} ({_reason(error)}): "
            f"check the address and that port {port} is open"
        ) from error
    if status != 200:
        raise refusal(status, body, address)
    try:
        return answer_type.FromString(body)
    except DecodeError as error:
        raise errors.FailedPrecondition(f"{address} did not answer as a manager does") from error


def _reason(error: Exception) -> str:
    """Why in a few words: aiohttp's own sentences name the objects it worked with."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ssl.SSLError):
        return (cause.reason or "TLS failed").replace("_", " ").lower()
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.errno is not None:
        known = cause.strerror if cause.errno < 0 else os.strerror(cause.errno)  # below zero: of the resolver
        return (known or type(cause).__name__).lower()
    return str(cause) or type(cause).__name__


async def _read(content: aiohttp.StreamReader, address: str) -> bytes:
    body = b""
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            raise errors.FailedPrecondition(f"{address} did not answer as a manager does")
    return body

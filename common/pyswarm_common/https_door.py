"""What a client of a manager's HTTPS door needs, whatever it speaks HTTP with: whom to believe, and refusals read.

The door speaks the Connect protocol: a refusal is a small JSON object with the name of a status and a message.
"""

from __future__ import annotations

import ssl

import msgspec

from pyswarm_common import errors
from pyswarm_common.documents import Malformed, decode_json

_MEANINGS = {name.lower(): meaning for meaning, name in errors.STATUS_NAMES.items()}


class _Refusal(msgspec.Struct):
    code: str
    message: str
    removed: str = ""
    """The id of the asking node, if that was removed from the cluster."""


def client_context() -> ssl.SSLContext:
    """TLS 1.3, believing nobody yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def pinned(root_cert_pem: bytes, what: str = "the pinned root") -> ssl.SSLContext:
    """Believes only those whom this root certifies. Raises InvalidArgument, which calls the root `what`."""
    context = client_context()
    try:
        context.load_verify_locations(cadata=root_cert_pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise errors.InvalidArgument(f"{what} is not a certificate in PEM form") from error
    return context


def refusal(status: int, body: bytes, address: str) -> errors.PyswarmError:
    """What the manager at the address refused, by its own words."""
    try:
        answer = decode_json(body, _Refusal)
    except Malformed:
        return errors.FailedPrecondition(f"{address} did not answer as a manager does (HTTP status {status})")
    if answer.removed:
        return errors.NodeRemoved(answer.removed)
    return _MEANINGS.get(answer.code, errors.PyswarmError)(answer.message)

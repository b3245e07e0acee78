"""The Connect protocol's forms: which request this is, how messages are wrapped, how errors look. Pure.

Unary calls carry one message as the body (application/proto, application/json); streams wrap each message in an
envelope of one byte of flags and four of length (application/connect+proto, application/connect+json), and end with an
envelope of their own that may hold an error. Bounded: what is longer than it may be is refused before it is read.
See https://connectrpc.com/docs/protocol.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from pyswarm_common.errors import Exhausted, InvalidArgument, Unsupported

M = TypeVar("M", bound=Message)

END_OF_STREAM: Final = 0x02
_COMPRESSED: Final = 0x01
_HEAD: Final = struct.Struct(">BI")

_HTTP_STATUS: Final = {
    "canceled": 499,
    "unknown": 500,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "aborted": 409,
    "out_of_range": 400,
    "unimplemented": 501,
    "internal": 500,
    "unavailable": 503,
    "data_loss": 500,
    "unauthenticated": 401,
}


@dataclass(frozen=True, slots=True)
class Codec:
    """What a content type says."""

    is_json: bool
    is_stream: bool

    @property
    def content_type(self) -> str:
        return f"application/{'connect+' if self.is_stream else ''}{'json' if self.is_json else 'proto'}"

    def decode(self, message_type: type[M], data: bytes) -> M:
        """Raises InvalidArgument for anything that is not that message."""
        message = message_type()
        try:
            if self.is_json:
                json_format.Parse(data.decode("utf-8") or "{}", message, max_recursion_depth=32)
            else:
                message.ParseFromString(data)
        except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise InvalidArgument(f"the body is not the {message_type.DESCRIPTOR.name} of this method") from error
        return message

    def encode(self, message: Message) -> bytes:
        if self.is_json:
            return json_format.MessageToJson(message, indent=None).encode()
        return message.SerializeToString()


_CODECS: Final = {codec.content_type: codec for codec in (Codec(j, s) for j in (False, True) for s in (False, True))}


def codec_of(content_type: str) -> Codec | None:
    """None for a type that is none of ours."""
    return _CODECS.get(content_type)


def envelope(payload: bytes, flags: int = 0) -> bytes:
    return _HEAD.pack(flags, len(payload)) + payload


def read_request_envelope(body: bytes, limit: int) -> bytes:
    """The one message of a server stream's request. Raises InvalidArgument, Exhausted or Unsupported."""
    if len(body) < _HEAD.size:
        raise InvalidArgument("the body has no whole envelope: one byte of flags, four of length, then the message")
    flags, length = _HEAD.unpack_from(body)
    if flags & _COMPRESSED:
        raise Unsupported("compressed messages are not taken: send them as they are")
    if flags:
        raise InvalidArgument("unknown flags in the envelope")
    if length > limit:
        raise Exhausted(f"the message is larger than {limit} bytes")
    if len(body) - _HEAD.size != length:
        raise InvalidArgument("the body is not exactly one envelope: the length in it is not that of the message")
    return body[_HEAD.size :]


def read_timeout_s(header: str | None) -> float | None:
    """Of `Connect-Timeout-Ms`. Raises InvalidArgument."""
    if not header:
        return None
    if not (header.isascii() and header.isdigit() and len(header) <= 10):
        raise InvalidArgument("Connect-Timeout-Ms must be a number of milliseconds, 10 digits at most")
    return int(header) / 1000.0


@dataclass(frozen=True, slots=True)
class ConnectError:
    """A refusal in Connect's form."""

    code: str
    message: str
    details: tuple[tuple[str, bytes], ...] = ()

    @property
    def http_status(self) -> int:
        return _HTTP_STATUS[self.code]

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            out["details"] = [{"type": name, "value": _base64(value)} for name, value in self.details]
        return out


def error_of(
    code: grpc.StatusCode, message: str, trailing_metadata: Iterable[tuple[str, str | bytes]] = ()
) -> ConnectError:
    """What a gRPC status says, its details included."""
    name = "canceled" if code is grpc.StatusCode.CANCELLED else code.name.lower()
    details: list[tuple[str, bytes]] = []
    for key, value in trailing_metadata:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status = status_pb2.Status.FromString(value)
            details += [(detail.TypeName(), detail.value) for detail in status.details]
    return ConnectError(name, message, tuple(details))


def end_of_stream(error: ConnectError | None) -> bytes:
    """The last envelope of every stream."""
    content = {} if error is None else {"error": error.to_json()}
    return envelope(json.dumps(content).encode(), END_OF_STREAM)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode().rstrip("=")

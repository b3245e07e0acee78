"""How errors travel: a `PyswarmError` becomes a status with `google.rpc` details, and there becomes itself again."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from pyswarm_common import errors

_log = logging.getLogger(__name__)


async def abort(context: grpc.aio.ServicerContext[Any, Any], method: str, error: Exception) -> None:
    """End the call with the error's status. A caller that is gone cannot get one, which is nobody's failure."""
    try:
        if isinstance(error, grpc.aio.InternalError):  # the handler aborted by itself, and nobody was there
            raise error
        await _answer(context, method, error)
    except grpc.aio.InternalError as gone:
        _log.debug("%s: the caller is gone", method)
        raise asyncio.CancelledError from gone  # what gRPC itself makes of a call that nobody waits for


async def _answer(context: grpc.aio.ServicerContext[Any, Any], method: str, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, grpc.aio.AioRpcError):  # forwarded: the far side's status is the answer
        await context.abort(error.code(), error.details() or "", _metadata(error))
    if not isinstance(error, errors.PyswarmError):
        _log.error("%s failed", method, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, "internal error: see the log of the daemon")
    assert isinstance(error, errors.PyswarmError)
    status = rpc_status.to_status(_status_message(error))
    await context.abort(status.code, status.details, (*(status.trailing_metadata or ()), *error.trailing))


def _status_message(error: errors.PyswarmError) -> status_pb2.Status:
    code = grpc.StatusCode[errors.STATUS_NAMES[_meaning(type(error))]]
    message = status_pb2.Status(code=code.value[0], message=str(error))
    if isinstance(error, errors.InvalidArgument) and error.violations:
        detail = error_details_pb2.BadRequest()
        for field, description in error.violations:
            detail.field_violations.add(field=field, description=description)
        packed = AnyMessage()
        packed.Pack(detail)
        message.details.append(packed)
    return message


def _meaning(error_type: type) -> type[errors.PyswarmError]:
    return next(base for base in error_type.__mro__ if base in errors.STATUS_NAMES)


_BY_CODE = {grpc.StatusCode[name]: meaning for meaning, name in errors.STATUS_NAMES.items()}


def error_from_rpc(error: grpc.aio.AioRpcError) -> errors.PyswarmError:
    """The refusal that the server raised; Unavailable when nobody answered."""
    code, details = error.code(), error.details() or "no answer"
    meaning = errors.Unavailable if code is grpc.StatusCode.DEADLINE_EXCEEDED else _BY_CODE.get(code)
    if meaning is errors.InvalidArgument:
        return errors.InvalidArgument(details, _violations(error))
    return (meaning or errors.PyswarmError)(details)


def _metadata(error: grpc.aio.AioRpcError) -> tuple[tuple[str, str | bytes], ...]:
    pairs: Any = error.trailing_metadata() or ()  # iterates as pairs, which the stubs do not know
    return tuple((key, value) for key, value in pairs)


def _violations(error: grpc.aio.AioRpcError) -> list[tuple[str, str]]:
    status = status_pb2.Status()
    for key, value in _metadata(error):
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status.ParseFromString(value)
    out = []
    for detail in status.details:
        request = error_details_pb2.BadRequest()
        if detail.Unpack(request):
            out += [(violation.field, violation.description) for violation in request.field_violations]
    return out

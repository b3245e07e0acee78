"""Errors by meaning: what a refusal says to its caller.

A refusal answers a caller who asked for something that cannot be had. Its class is its meaning; its message is one
sentence that says what to do next. One table (`STATUS_NAMES`) maps the classes to gRPC status names; the gRPC
interceptors and the CLI use it, and nobody ever compares messages.

Bugs are not here: a broken invariant is an `assert`, and ends the process or the leader's term.
"""

from __future__ import annotations

from collections.abc import Sequence


class PyswarmError(Exception):
    """A refusal or a failure that has a meaning for the caller."""

    trailing: tuple[tuple[str, str], ...] = ()
    """Metadata that goes with the status, for programs that must tell this refusal from others of its meaning."""


class InvalidArgument(PyswarmError):
    """The request itself is wrong. `violations` holds (field path, sentence) of every wrong field at once."""

    def __init__(self, message: str, violations: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)


class NotFound(PyswarmError):
    """No object of that id or name."""


class AlreadyExists(PyswarmError):
    """The name, port, subnet or address is taken."""


class OutOfSequence(PyswarmError):
    """The object moved since the version the caller read: read again, then retry."""


class FailedPrecondition(PyswarmError):
    """Not in this state: in use, not a member, would lose quorum."""


class Forbidden(PyswarmError):
    """The caller's role may not do this."""


NODE_REMOVED_KEY = "pyswarm-node-removed"


class NodeRemoved(Forbidden):
    """The calling node was removed from the swarm: it will never be let in again with this certificate."""

    trailing = ((NODE_REMOVED_KEY, "1"),)

    def __init__(self, node_id: str) -> None:
        super().__init__(f"node {node_id} was removed from the swarm: leave, then join again")
        self.node_id = node_id


class Unauthenticated(PyswarmError):
    """No acceptable certificate or token."""


class Unavailable(PyswarmError):
    """Cannot be answered now (no leader, manager unreachable): try again."""


class Unknown(PyswarmError):
    """Leadership was lost while the proposal was in flight: it may or may not commit. Read again before retrying."""


class Exhausted(PyswarmError):
    """A limit is reached: addresses, ports, queue, size."""


class Unsupported(PyswarmError):
    """This host or kernel cannot do it."""


STATUS_NAMES: dict[type[PyswarmError], str] = {
    InvalidArgument: "INVALID_ARGUMENT",
    NotFound: "NOT_FOUND",
    AlreadyExists: "ALREADY_EXISTS",
    OutOfSequence: "ABORTED",
    FailedPrecondition: "FAILED_PRECONDITION",
    Forbidden: "PERMISSION_DENIED",
    Unauthenticated: "UNAUTHENTICATED",
    Unavailable: "UNAVAILABLE",
    Unknown: "UNKNOWN",
    Exhausted: "RESOURCE_EXHAUSTED",
    Unsupported: "UNIMPLEMENTED",
}

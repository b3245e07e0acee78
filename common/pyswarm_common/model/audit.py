"""What was changed, by whom: the records of the audit log.

A record says who, how, from where and what, never with which content: no field of it may hold a secret. The meaning of
each field is written once, in access.proto.
"""

from __future__ import annotations

from pyswarm_common.model.base import Struct


class AuditTarget(Struct, frozen=True):
    """An object that was changed. `action` is create, update or remove."""

    kind: str = ""
    id: str = ""
    name: str = ""
    action: str = ""


class AuditRecord(Struct, frozen=True):
    """One change set that somebody asked for. Its index, time and targets are written when it is applied."""

    index: int = 0
    time: float = 0.0
    actor_kind: str = ""
    """local, certificate, token, node or machine."""
    actor: str = ""
    credential_id: str = ""
    role: str = ""
    source: str = ""
    manager_id: str = ""
    method: str = ""
    targets: tuple[AuditTarget, ...] = ()
    detail: str = ""

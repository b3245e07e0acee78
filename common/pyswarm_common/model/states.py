"""States and other enumerations, with the numbers of proto/pyswarm/v1/types.proto (a test holds them together)."""

from __future__ import annotations

from enum import IntEnum


class NodeRole(IntEnum):
    WORKER = 0
    MANAGER = 1


class Availability(IntEnum):
    ACTIVE = 0
    PAUSE = 1
    DRAIN = 2


class NodeState(IntEnum):
    UNKNOWN = 0
    DOWN = 1
    READY = 2
    SUSPECT = 3


class TaskState(IntEnum):
    """One way only: a task's state never goes back, and `<` means "earlier"."""

    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    ORPHANED = 832

    @property
    def is_terminal(self) -> bool:
        """Whether the task has ended, however it ended."""
        return self > TaskState.RUNNING


class MountType(IntEnum):
    BIND = 0
    VOLUME = 1
    TMPFS = 2


class RestartCondition(IntEnum):
    ANY = 0
    ON_FAILURE = 1
    NONE = 2


class FailureAction(IntEnum):
    PAUSE = 0
    CONTINUE = 1
    ROLLBACK = 2


class UpdateOrder(IntEnum):
    STOP_FIRST = 0
    START_FIRST = 1


class TaintEffect(IntEnum):
    NO_SCHEDULE = 0
    PREFER_NO_SCHEDULE = 1
    NO_EXECUTE = 2


class PlacementStrategy(IntEnum):
    DEFAULT = 0
    SPREAD = 1
    BINPACK = 2


class Protocol(IntEnum):
    TCP = 0
    UDP = 1
    SCTP = 2


class PublishMode(IntEnum):
    INGRESS = 0
    HOST = 1


class IngressPolicy(IntEnum):
    SPREAD = 0
    LOCAL = 1


class SessionAffinity(IntEnum):
    NONE = 0
    CLIENT_IP = 1


class EndpointMode(IntEnum):
    VIP = 0
    DNSRR = 1


class ServiceMode(IntEnum):
    REPLICATED = 0
    GLOBAL = 1
    REPLICATED_JOB = 2
    GLOBAL_JOB = 3
    CRON = 4

    @property
    def is_job(self) -> bool:
        """Whether its tasks run to completion."""
        return self >= ServiceMode.REPLICATED_JOB


class OverlapPolicy(IntEnum):
    FORBID = 0
    ALLOW = 1
    REPLACE = 2


class CronRunState(IntEnum):
    RUNNING = 0
    COMPLETE = 1
    FAILED = 2
    SKIPPED = 3
    REPLACED = 4


class DependencyCondition(IntEnum):
    STARTED = 0
    HEALTHY = 1
    COMPLETED = 2


class HealthState(IntEnum):
    NONE = 0
    STARTING = 1
    HEALTHY = 2
    UNHEALTHY = 3


class UpdateState(IntEnum):
    NONE = 0
    UPDATING = 1
    PAUSED = 2
    COMPLETED = 3
    ROLLBACK_STARTED = 4
    ROLLBACK_PAUSED = 5
    ROLLBACK_COMPLETED = 6

    @property
    def is_paused(self) -> bool:
        """It goes on when somebody asks for it."""
        return self in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)

    @property
    def is_rollback(self) -> bool:
        return self in (UpdateState.ROLLBACK_STARTED, UpdateState.ROLLBACK_PAUSED, UpdateState.ROLLBACK_COMPLETED)


class RebalanceState(IntEnum):
    NONE = 0
    RUNNING = 1
    COMPLETED = 2


class PersonRole(IntEnum):
    """What a person may do; each may do what the one before it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


class CredentialKind(IntEnum):
    TOKEN = 0
    CERTIFICATE = 1

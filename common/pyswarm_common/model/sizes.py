"""How many tasks a service is to have, as every reader of its object tells it: planner, API and command line.

Pure functions of the objects. A number that is not given has docker's default.
"""

from __future__ import annotations

from typing import NamedTuple

from pyswarm_common.model.objects import Service
from pyswarm_common.model.specs import ResourceRequirements, ServiceSpec

DEFAULT_REPLICAS = 1


class JobSize(NamedTuple):
    """Of one run of a job."""

    total: int
    concurrent: int


def job_size(spec: ServiceSpec) -> JobSize:
    """What is not said follows from the other: as many at a time as there are in all, and one in all."""
    job = spec.job
    concurrent = job.max_concurrent if job is not None else None
    total = job.total_completions if job is not None else None
    if total is None:
        total = 1 if concurrent is None else concurrent
    return JobSize(total, total if concurrent is None else concurrent)


def wanted_replicas(service: Service) -> int:
    """Of a replicated service. None while it is stopped: its number is kept, and comes back when it is started."""
    return 0 if service.spec.stopped else kept_replicas(service)


def kept_replicas(service: Service) -> int:
    """Of a replicated service, stopped or not."""
    spec, status = service.spec, service.autoscale_status
    asked = DEFAULT_REPLICAS if spec.replicas is None else spec.replicas
    if spec.autoscale is None:
        return asked
    chosen = status.replicas if status is not None and status.replicas else asked
    return min(max(chosen, spec.autoscale.min_replicas), spec.autoscale.max_replicas)


def cpu_base(resources: ResourceRequirements) -> int:
    """What 100 % of a task's cpu is, in nano cpus: the limit, else the reservation; zero if there is neither."""
    return resources.limits.nano_cpus or resources.reservations.nano_cpus


def memory_base(resources: ResourceRequirements) -> int:
    """What 100 % of a task's memory is, in bytes."""
    return resources.limits.memory_bytes or resources.reservations.memory_bytes

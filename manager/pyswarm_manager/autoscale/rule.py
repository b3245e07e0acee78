"""How many tasks a service should have, from what its tasks use: the rule of Kubernetes' autoscaler, which users know.

For each thing that is looked at: the average use of the running tasks against what is aimed at; the number of tasks
grows and shrinks with that ratio; within a tolerance nothing changes; of several things the largest number counts.
What is not known is taken so that it speaks against a change: a task without a reading uses nothing when there would
be more tasks, and exactly what is aimed at when there would be fewer; one that has just begun counts as using nothing.

Pure, without memory: `windows` keeps what was recommended, and decides when it has been right for long enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pyswarm_common.model import AutoscaleSpec, ResourceRequirements
from pyswarm_common.model.sizes import cpu_base, memory_base

TOLERANCE = 0.1
"""Differences from what is aimed at that are none."""
GROWTH = 2
"""At most so many times as many tasks in one step, or `LEAST_GROWTH` more if that is more."""
LEAST_GROWTH = 4


class Reading(NamedTuple):
    """What one task uses."""

    nano_cpus: int
    memory_bytes: int


class Member(NamedTuple):
    """One wanted task: what it uses, if that is known."""

    is_ready: bool
    """It runs, and has for long enough to be typical."""
    reading: Reading | None


class Advice(NamedTuple):
    replicas: int
    reason: str


class _Metric(NamedTuple):
    name: str
    aim_percent: int
    shares: tuple[float, ...]
    """Use of each known ready task, as a share of what is aimed at."""
    unknown: int
    """Ready tasks without a reading."""
    starting: int


def advise(spec: AutoscaleSpec, resources: ResourceRequirements, current: int, members: Sequence[Member]) -> Advice:
    """What the tasks' use asks for now, within the service's bounds."""
    advice = [_advise_by(metric, current) for metric in _metrics(spec, resources, members)]
    known = [each for each in advice if each is not None]
    best = max(known, key=lambda each: each.replicas, default=Advice(current, "nothing is known of its tasks"))
    if len(known) < len(advice) and best.replicas < current:
        best = Advice(current, best.reason)  # what is not known might forbid it
    most = min(spec.max_replicas, max(current * GROWTH, current + LEAST_GROWTH))
    return best._replace(replicas=min(max(best.replicas, spec.min_replicas), most))


def _metrics(spec: AutoscaleSpec, resources: ResourceRequirements, members: Sequence[Member]) -> Iterator[_Metric]:
    """What is looked at: where something is aimed at, and it is known what the percentage is of."""
    readings = [member.reading for member in members if member.is_ready and member.reading is not None]
    starting = sum(not member.is_ready for member in members)
    unknown = len(members) - starting - len(readings)
    cpu_aim = cpu_base(resources) * spec.cpu_percent / 100
    if cpu_aim:
        shares = tuple(reading.nano_cpus / cpu_aim for reading in readings)
        yield _Metric("cpu", spec.cpu_percent, shares, unknown, starting)
    memory_aim = memory_base(resources) * spec.memory_percent / 100
    if memory_aim:
        shares = tuple(reading.memory_bytes / memory_aim for reading in readings)
        yield _Metric("memory", spec.memory_percent, shares, unknown, starting)


def _advise_by(metric: _Metric, current: int) -> Advice | None:
    """None if nothing is known."""
    if not metric.shares:
        return None
    used = sum(metric.shares)
    ratio = used / len(metric.shares)
    reason = f"{metric.name} {ratio * metric.aim_percent:.0f} % of {metric.aim_percent} %"
    keep = Advice(current, reason)
    if abs(ratio - 1.0) <= TOLERANCE:
        return keep
    if ratio > 1.0:
        count = len(metric.shares) + metric.unknown + metric.starting
        wanted = math.ceil(used - _EPSILON)
        return keep if used / count <= 1.0 + TOLERANCE or wanted < current else Advice(wanted, reason)
    count = len(metric.shares) + metric.unknown
    used += metric.unknown
    wanted = math.ceil(used - _EPSILON)
    return keep if used / count >= 1.0 - TOLERANCE or wanted > current else Advice(wanted, reason)


_EPSILON = 1e-9
"""What rounding in sums of shares may add."""

"""How many tasks their use asks for, and what is not known speaks against a change."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common.model import AutoscaleSpec, ResourceRequirements, Resources
from pyswarm_manager.autoscale.rule import GROWTH, LEAST_GROWTH, TOLERANCE, Advice, Member, Reading, advise

CORE = 1_000_000_000
MIB = 1 << 20
LIMITS = ResourceRequirements(limits=Resources(nano_cpus=CORE, memory_bytes=100 * MIB))
BY_CPU = AutoscaleSpec(min_replicas=1, max_replicas=20, cpu_percent=50)


def cpu(*percents: float) -> list[Member]:
    return [Member(True, Reading(round(CORE * percent / 100), 0)) for percent in percents]


UNKNOWN = Member(True, None)
STARTING = Member(False, None)


def advised(members: list[Member], spec: AutoscaleSpec = BY_CPU) -> int:
    return advise(spec, LIMITS, len(members), members).replicas


@pytest.mark.parametrize(
    ("members", "replicas"),
    [
        (cpu(100), 2),
        (cpu(100, 100), 4),
        (cpu(50, 50), 2),
        (cpu(54, 54), 2),  # within the tolerance
        (cpu(46, 46), 2),
        (cpu(60, 60), 3),
        (cpu(10, 10, 10, 10), 1),
        (cpu(0, 0), 1),
        (cpu(75, 25), 2),
        ([*cpu(100), STARTING], 2),  # what starts takes its share soon
        ([*cpu(100), STARTING, STARTING], 3),
        ([*cpu(100, 100), UNKNOWN], 4),
        ([*cpu(10), UNKNOWN], 2),  # might use all that is aimed at
        ([*cpu(10, 10, 10), UNKNOWN], 2),
        ([UNKNOWN, UNKNOWN], 2),
        ([STARTING], 1),
    ],
)
def test_advice_by_cpu(members: list[Member], replicas: int) -> None:
    assert advised(members) == replicas


def test_the_reason_says_what_is_used_and_what_is_aimed_at() -> None:
    assert advise(BY_CPU, LIMITS, 1, cpu(93)) == Advice(2, "cpu 93 % of 50 %")


def test_of_cpu_and_memory_the_larger_number_counts() -> None:
    spec = AutoscaleSpec(min_replicas=1, max_replicas=20, cpu_percent=50, memory_percent=50)
    member = Member(True, Reading(round(CORE * 0.1), 100 * MIB))
    assert advise(spec, LIMITS, 2, [member, member]) == Advice(4, "memory 100 % of 50 %")


def test_a_reservation_is_the_measure_where_there_is_no_limit() -> None:
    reserved = ResourceRequirements(reservations=Resources(nano_cpus=CORE // 2))
    assert advise(BY_CPU, reserved, 1, cpu(50)).replicas == 2


def test_no_more_and_no_fewer_than_the_user_allows() -> None:
    spec = AutoscaleSpec(min_replicas=2, max_replicas=3, cpu_percent=50)
    assert advised(cpu(100, 100, 100), spec) == 3
    assert advised(cpu(1, 1, 1), spec) == 2


def test_one_step_does_not_grow_without_bounds() -> None:
    spec = AutoscaleSpec(min_replicas=1, max_replicas=1000, cpu_percent=1)
    assert advised(cpu(100), spec) == 1 + LEAST_GROWTH
    assert advised(cpu(*[100.0] * 10), spec) == 10 * GROWTH


@given(
    used=st.lists(st.floats(0, 300), min_size=1, max_size=12),
    unknown=st.integers(0, 4),
    starting=st.integers(0, 4),
)
def test_a_number_that_was_advised_is_right_if_the_load_stays(used: list[float], unknown: int, starting: int) -> None:
    """Spread over as many tasks as were advised, the same load asks for no further change."""
    members = [*cpu(*used), *[UNKNOWN] * unknown, *[STARTING] * starting]
    current = len(members)
    replicas = advised(members)
    assert 1 <= replicas <= 20
    if replicas == min(20, max(current * GROWTH, current + LEAST_GROWTH)) or replicas == 1:
        return  # held back by a bound
    if replicas > current:
        assert sum(used) / replicas <= 50 * (1 + TOLERANCE)
        assert replicas == math.ceil(round(sum(used) / 50, 6))
    elif replicas < current:
        assert (sum(used) + 50 * unknown) / replicas <= 50 * (1 + 1e-6)
        assert advised(cpu(*[(sum(used) + 50 * unknown) / replicas] * replicas)) in (replicas - 1, replicas)

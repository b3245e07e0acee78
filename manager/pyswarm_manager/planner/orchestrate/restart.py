"""The restart policy: whether an ended task gets a successor, and when.

Everything it counts is in the task objects (`restart_times`, `failures_in_row`), so a new leader goes on counting. The
policy's delay doubles with each failure in a row, up to its cap, so that a broken service does not keep its nodes busy.
A task that ran for a while starts afresh. How long a task ran is told by its own node's clock alone: leaders change,
and their clocks differ.

The successor of a task that ran is made at once, and prepared while it waits for its start. One that never ran was
refused or failed in its preparation, which would most likely fail again: its successor is made only after the delay, so
that no slot prepares more often than that.
"""

from __future__ import annotations

from typing import NamedTuple

from pyswarm_common.model import DEFAULT_RESTART_DELAY_S, RestartCondition, RestartPolicy, Task, TaskState
from pyswarm_manager.planner.draft import Rng

STABLE_S = 30.0
"""A task that ran for so long did not fail at once."""
DEFAULT_MAX_DELAY_S = 300.0
MIN_BACKOFF_S = 1.0
"""What a delay of zero becomes from the second failure in a row on."""
_MAX_DOUBLINGS = 16
_REMEMBERED = 16
_JITTER = 0.1


class Restart(NamedTuple):
    start_at: float
    """Zero: at once."""
    restart_times: tuple[float, ...]
    make_at: float = 0.0
    """The successor may not be made before. Zero: at once."""
    failures_in_row: int = 0


def next_restart(policy: RestartPolicy, ended: Task, now: float, rng: Rng) -> Restart | None:
    """When the successor of the ended task may be made and start; None if the policy wants none."""
    if not will_restart(policy, ended, now):
        return None
    earlier = 0 if has_run_well(ended) else ended.failures_in_row
    delay = _delay(policy, earlier)
    if ended.running_at and earlier:
        delay *= 1.0 + _JITTER * rng()  # spread out what failed together
    times = _moved_on(policy, ended.restart_times, now, delay)
    if not ended.running_at:
        # An end that lies ahead was written by a leader whose clock was wrong: waiting for it might take for ever.
        make_at = 0.0 if ended.ended_at > now else ended.ended_at + delay
        return Restart(0.0, (*times, now), make_at, earlier + 1)
    return Restart(now + delay if delay > 0 else 0.0, (*times, now + delay), failures_in_row=earlier + 1)


def longest_delay(policy: RestartPolicy) -> float:
    """No successor waits longer than this."""
    return _max_delay(policy) * (1.0 + _JITTER)


def will_restart(policy: RestartPolicy, ended: Task, now: float) -> bool:
    """Whether the ended task gets a successor."""
    if not _condition_holds(policy.condition, ended.status.state):
        return False
    return not policy.max_attempts or len(_counted(policy, ended.restart_times, now)) < policy.max_attempts


def run_time(ended: Task) -> float:
    """For how long the ended task ran."""
    if ended.ran_from and ended.status.timestamp:
        return max(0.0, ended.status.timestamp - ended.ran_from)
    return max(0.0, ended.ended_at - (ended.running_at or ended.ended_at))


def has_run_well(ended: Task) -> bool:
    """Whether the ended task is none of a row of failures."""
    return bool(ended.running_at) and run_time(ended) >= STABLE_S


def _condition_holds(condition: RestartCondition, state: TaskState) -> bool:
    match condition:
        case RestartCondition.ANY:
            return True
        case RestartCondition.ON_FAILURE:
            return state is not TaskState.COMPLETE
        case RestartCondition.NONE:
            return False


def _counted(policy: RestartPolicy, times: tuple[float, ...], now: float) -> tuple[float, ...]:
    """The restarts within the window. Those of a clock that was far ahead are not."""
    if policy.max_attempts and policy.window_s:
        return tuple(time for time in times if abs(now - time) < policy.window_s)
    return times


def _moved_on(policy: RestartPolicy, times: tuple[float, ...], now: float, delay: float) -> tuple[float, ...]:
    """The counted restarts as if the coming delay took no time: a window shorter than the delay would never hold two,
    and a policy's attempts would never be used up."""
    room = max(policy.max_attempts, _REMEMBERED) - 1
    return tuple(time + delay for time in _counted(policy, times, now)[-room:])


def _base_delay(policy: RestartPolicy) -> float:
    return DEFAULT_RESTART_DELAY_S if policy.delay_s is None else policy.delay_s


def _max_delay(policy: RestartPolicy) -> float:
    return max(_base_delay(policy), policy.max_delay_s or DEFAULT_MAX_DELAY_S)


def _delay(policy: RestartPolicy, failures: int) -> float:
    """After so many failures in a row before this one."""
    base = _base_delay(policy)
    if failures <= 0:
        return base
    if base < MIN_BACKOFF_S:
        base, failures = MIN_BACKOFF_S, failures - 1
    doubled = base * 2.0 ** min(failures, _MAX_DOUBLINGS)
    return min(doubled, _max_delay(policy))

"""The restart policy: whether an ended task gets a successor, and when.

Everything it counts is in the task objects (`restart_times`), so a new leader goes on counting. The policy's delay is
kept for the first restarts; a slot that goes on failing soon after each start waits twice as long each time, up to a
cap, so that a broken service does not keep its nodes busy. A task that ran for a while starts afresh.

The successor of a task that ran is made at once, and prepared while it waits for its start. One that never ran was
refused or failed in its preparation, which would most likely fail again: its successor is made only after the delay, so
that no slot prepares more often than that.
"""

from __future__ import annotations

from typing import NamedTuple

from pyswarm_common.model import DEFAULT_RESTART_DELAY_S, RestartCondition, RestartPolicy, Task, TaskState
from pyswarm_manager.planner.draft import Rng

STABLE_S = 30.0
"""A task that lived so long did not fail at once."""
PATIENT_RESTARTS = 2
"""Quick restarts in a row that get the policy's plain delay."""
MAX_BACKOFF_S = 120.0
MIN_BACKOFF_S = 1.0
_REMEMBERED = 16


class Restart(NamedTuple):
    start_at: float
    """Zero: at once."""
    restart_times: tuple[float, ...]
    make_at: float = 0.0
    """The successor may not be made before. Zero: at once."""


def next_restart(policy: RestartPolicy, ended: Task, now: float, rng: Rng) -> Restart | None:
    """When the successor of the ended task may be made and start; None if the policy wants none."""
    if not will_restart(policy, ended, now):
        return None
    counted = _counted(policy, ended.restart_times, now)
    times = (*counted, now)[-max(policy.max_attempts, _REMEMBERED) :]
    delay = _delay(policy, ended)
    if not ended.running_at:
        # An end that lies ahead was written by a leader whose clock was wrong: waiting for it might take for ever.
        return Restart(0.0, times, make_at=0.0 if ended.ended_at > now else ended.ended_at + delay)
    if delay > _base_delay(policy):
        delay *= 1.0 + 0.1 * rng()  # spread out what failed together
    return Restart(now + delay if delay > 0 else 0.0, times)


def longest_delay(policy: RestartPolicy) -> float:
    """No successor waits longer than this."""
    return max(_base_delay(policy), MAX_BACKOFF_S) * 1.1


def will_restart(policy: RestartPolicy, ended: Task, now: float) -> bool:
    """Whether the ended task gets a successor."""
    if not _condition_holds(policy.condition, ended.status.state):
        return False
    return not policy.max_attempts or len(_counted(policy, ended.restart_times, now)) < policy.max_attempts


def _condition_holds(condition: RestartCondition, state: TaskState) -> bool:
    match condition:
        case RestartCondition.ANY:
            return True
        case RestartCondition.ON_FAILURE:
            return state is not TaskState.COMPLETE
        case RestartCondition.NONE:
            return False


def _counted(policy: RestartPolicy, times: tuple[float, ...], now: float) -> tuple[float, ...]:
    if policy.max_attempts and policy.window_s:
        return tuple(time for time in times if time > now - policy.window_s)
    return times


def _base_delay(policy: RestartPolicy) -> float:
    return DEFAULT_RESTART_DELAY_S if policy.delay_s is None else policy.delay_s


def _delay(policy: RestartPolicy, ended: Task) -> float:
    base = _base_delay(policy)
    doublings = _quick_failures(ended) - PATIENT_RESTARTS
    if doublings < 0:
        return base
    backoff = max(base, MIN_BACKOFF_S) * 2.0 ** min(doublings + 1, 16)
    return max(base, min(backoff, MAX_BACKOFF_S))


def _quick_failures(ended: Task) -> int:
    """How many restarts in a row, up to this end, came soon after the one before."""
    if _lifetime(ended) >= STABLE_S:
        return 0
    times = ended.restart_times
    count = len(times[-1:])
    for earlier, later in zip(times[-2::-1], times[:0:-1], strict=False):
        if later - earlier > STABLE_S + MAX_BACKOFF_S * 1.1:
            break
        count += 1
    return count


def _lifetime(task: Task) -> float:
    started = task.running_at or task.ended_at
    return max(0.0, task.ended_at - started)

"""Bugs in jobs and schedules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from pyswarm_common.model import Service
from pyswarm_common.model.sizes import job_size
from pyswarm_manager.planner.orchestrate import cron, jobs
from pyswarm_simulator.planting import planted, replaced
from pyswarm_simulator.profile import JOBS


@planted("a tick is begun and not written down", JOBS, 30)
def _forgotten_tick() -> Iterator[None]:
    """Whoever leads next begins it once more."""
    original = cron._decided

    def decided(service: Service, *arguments: Any) -> Service:
        found = original(service, *arguments)
        assert found.cron_status is not None
        assert service.cron_status is not None
        return replace(found, cron_status=replace(found.cron_status, last_tick_at=service.cron_status.last_tick_at))

    with replaced(cron, "_decided", decided):
        yield


@planted("a completion counts only while its task is wanted", JOBS, 30)
def _lost_completion() -> Iterator[None]:
    """As if the task had never run."""
    with replaced(jobs, "_is_done", lambda tasks: False):
        yield


@planted("tasks that are at work are not counted", JOBS, 30)
def _no_concurrency() -> Iterator[None]:
    """Each plan makes as many as may be in all."""
    original = jobs._fill

    def fill(work: Any, iteration: int, slots: Any, free: Any, room: int) -> None:
        original(work, iteration, slots, free, job_size(work.spec).concurrent)

    with replaced(jobs, "_fill", fill):
        yield

"""How far a run of a job is, from the objects that the watch delivers: docker's `job progress`.

Pure, and fed as `service.progress` is. A run is over when the managers say so; it has failed if any of its tasks was
given up. Of a cron service only a run that somebody asked for is waited for: otherwise there is nothing to wait for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pyswarm_cli.service.progress import MAX_LINES, Outcome, Picture, TaskLine, task_line
from pyswarm_common.model import CronRunState, JobStatus, Service, ServiceMode, Task, TaskState
from pyswarm_common.model.sizes import job_size


@dataclass(slots=True)
class JobProgress:
    """The state of one wait."""

    service: Service
    # Which run; zero: the one that is going.
    run: int = 0
    tasks: dict[str, Task] = field(default_factory=dict)
    removed: bool = False

    def look(self, now: float) -> Picture:
        """What to show at this time."""
        del now  # a job needs no time to prove that it is stable
        if self.removed:
            return Picture("", (), "", Outcome.FAILED, f"service {self.service.spec.name} was removed")
        if self.service.spec.mode is ServiceMode.CRON and not self.run and not self.service.spec.stopped:
            return Picture(f"cron service {self.service.spec.name} is scheduled", (), "", Outcome.CONVERGED)
        status = self._status()
        own = [task for task in self.tasks.values() if task.job_iteration == status.iteration]
        total, concurrent = self._size(status, own)
        active = sum(_is_going(task) and task.status.state is TaskState.RUNNING for task in own)
        overall = f"job progress: {status.succeeded} out of {total} complete"
        lines = (TaskLine("active tasks", f"{active} out of {min(concurrent, total)} tasks", 0), *_lines(own, total))
        return self._judged(Picture(overall, lines, "", Outcome.GOING), status)

    def _judged(self, picture: Picture, status: JobStatus) -> Picture:
        if self.service.spec.stopped:
            is_still = not any(
                TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING for task in self.tasks.values()
            )
            return replace(picture, verify="job stopped", outcome=Outcome.CONVERGED) if is_still else picture
        if not status.iteration or not status.completed_at:
            return picture
        if self._is_replaced():
            message = f"run {status.iteration} of service {self.service.spec.name} was replaced by the next"
            return Picture(picture.overall, picture.lines, "", Outcome.FAILED, message)
        if status.failed:
            what = "1 task" if status.failed == 1 else f"{status.failed} tasks"
            return Picture(picture.overall, picture.lines, "", Outcome.FAILED, f"job failed: {what} gave up")
        return Picture(picture.overall, picture.lines, "job complete", Outcome.CONVERGED)

    def _status(self) -> JobStatus:
        status, cron = self.service.job_status or JobStatus(), self.service.cron_status
        for run in cron.runs if cron is not None and self.run else ():
            if run.iteration == self.run:
                return JobStatus(run.iteration, run.started_at, run.completed_at, run.succeeded, run.failed)
        return status

    def _is_replaced(self) -> bool:
        cron = self.service.cron_status
        runs = cron.runs if cron is not None else ()
        return any(run.iteration == self.run and run.state is CronRunState.REPLACED for run in runs)

    def _size(self, status: JobStatus, own: list[Task]) -> tuple[int, int]:
        if self.service.spec.mode is ServiceMode.GLOBAL_JOB:
            nodes = len({task.node_id for task in own})
            return max(nodes, status.succeeded + status.failed), nodes
        return job_size(self.service.spec)


def _is_going(task: Task) -> bool:
    return task.desired_state <= TaskState.RUNNING >= task.status.state


def _lines(own: list[Task], total: int) -> list[TaskLine]:
    """The latest task of each slot; of a job with many slots those that are going."""
    latest: dict[int | str, Task] = {}
    for task in sorted(own, key=lambda task: (task.meta.created_at, task.id)):
        latest[task.slot or task.node_id] = task
    shown = latest if len(latest) <= MAX_LINES else {key: task for key, task in latest.items() if _is_going(task)}
    width = len(str(total))
    labels = {key: f"{key:>{width}}/{total}" if isinstance(key, int) else key[:12] for key in shown}
    return [task_line(labels[key], shown[key]) for key in sorted(shown, key=_order)][:MAX_LINES]


def _order(key: int | str) -> tuple[str, int]:
    return (key, 0) if isinstance(key, str) else ("", key)

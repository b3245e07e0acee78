"""Waits for a service to converge and shows how it goes, as docker does: by watching, never by polling.

The shell around `service.progress`. On a terminal the task lines are redrawn; into a pipe only what changes is printed.
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

import click

from pyswarm.v1 import control_pb2, watch_pb2
from pyswarm_cli.connection import Connection, call
from pyswarm_cli.failures import FromDaemon, Silent, one_line
from pyswarm_cli.listing import all_tasks
from pyswarm_cli.service.job_progress import JobProgress
from pyswarm_cli.service.progress import LAST_STEP, Outcome, Picture, Progress, TaskLine
from pyswarm_cli.watching import Events, watched
from pyswarm_common import errors
from pyswarm_common.codec import from_proto
from pyswarm_common.model import Service, Task, UpdateState

_BAR = 50


def follow(connection: Connection, service: Any, *, rollback: bool = False, quiet: bool = False, run: int = 0) -> None:
    """Return when the service, as the caller's write left it, has converged; a job, or the `run` of one, when it is
    complete. Raises Silent after saying why not."""
    screen = Screen(quiet)
    progress = _progress_of(from_proto(Service, service), rollback, run)
    try:
        picture = _follow(connection, progress, service, screen)
    except KeyboardInterrupt:
        click.echo("\nOperation continuing in background.")
        click.echo(f"Use `pyswarm service ps {service.spec.name}` to check progress.")
        raise
    if picture.outcome is Outcome.FAILED:
        click.echo(one_line(picture.message), err=True)
        raise Silent


def _progress_of(service: Service, rollback: bool, run: int) -> Progress | JobProgress:
    if service.spec.mode.is_job:
        return JobProgress(service, run)
    status = service.update_status
    is_over = status is not None and status.state is UpdateState.ROLLBACK_COMPLETED
    return Progress(service, is_rollback=rollback, earlier=status if is_over else None)


def _follow(connection: Connection, progress: Progress | JobProgress, written: Any, screen: Screen) -> Picture:
    def watch(events: Events) -> Picture:
        _read(connection, progress, written.meta.version)
        events.standing()
        return _until_over(progress, events, screen)

    return watched(connection, _watch_of(written.id), watch)


def _read(connection: Connection, progress: Progress | JobProgress, minimum_version: int) -> None:
    """Bring the objects up to date; what was seen of the update stays. A manager that lags is asked again."""
    request = control_pb2.GetServiceRequest(service=progress.service.id)
    service = from_proto(Service, call(connection.control.GetService, request).service)
    if service.meta.version < minimum_version:
        raise FromDaemon(errors.Unavailable("this manager has not seen the change yet; try again"))
    progress.service = service
    tasks = [from_proto(Task, task) for task in all_tasks(connection, [service.id])]
    progress.tasks = {task.id: task for task in tasks}


def _until_over(progress: Progress | JobProgress, events: Events, screen: Screen) -> Picture:
    while True:
        picture = progress.look(time.monotonic())
        screen.show(picture)
        if picture.outcome is not Outcome.GOING:
            return picture
        wait = None if picture.wake_at is None else max(0.0, picture.wake_at - time.monotonic())
        for event in events.next(wait):
            take(progress, event)


def take(progress: Progress | JobProgress, event: Any) -> None:
    """Bring one object up to date. A manager that lags tells what we know already: the newer version stays."""
    removed = event.action == watch_pb2.CHANGE_ACTION_REMOVE
    if event.HasField("service") and event.service.id == progress.service.id:
        progress.removed = removed
        if not removed and event.service.meta.version > progress.service.meta.version:
            progress.service = from_proto(Service, event.service)
    elif event.HasField("task") and event.task.service_id == progress.service.id:
        if removed:
            progress.tasks.pop(event.task.id, None)
            return
        known = progress.tasks.get(event.task.id)
        if known is None or event.task.meta.version > known.meta.version:
            progress.tasks[event.task.id] = from_proto(Task, event.task)


def _watch_of(service_id: str) -> Any:
    kinds = [watch_pb2.OBJECT_KIND_SERVICE, watch_pb2.OBJECT_KIND_TASK]
    return watch_pb2.WatchRequest(kinds=kinds, service_ids=[service_id])


class Screen:
    """Where progress is shown."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._redraw = sys.stdout.isatty() and not quiet
        self._drawn = 0
        self._shown: dict[str, str] = {}

    def show(self, picture: Picture) -> None:
        """Bring what is shown up to date."""
        if self._quiet:
            return
        if self._redraw:
            self._draw(picture)
        else:
            self._print_changes(picture)

    def _draw(self, picture: Picture) -> None:
        width = shutil.get_terminal_size().columns - 1
        texts = [picture.overall, *(bar_line(line) for line in picture.lines)]
        texts += [picture.verify] if picture.verify else []
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        body = "".join(f"\x1b[2K{text[:width]}\n" for text in texts)
        surplus = max(0, self._drawn - len(texts))
        rest = "\x1b[2K\n" * surplus + (f"\x1b[{surplus}A" if surplus else "")
        click.echo(f"{up}{body}{rest}", nl=False)
        self._drawn = len(texts)

    def _print_changes(self, picture: Picture) -> None:
        """One line per thing that changed; the count-down of the verification is not worth a line each second."""
        verify = picture.verify.split(" seconds")[0].rstrip("0123456789 ")
        texts = {"overall": picture.overall, **{line.label: plain_line(line) for line in picture.lines if line.text}}
        for key, text in texts.items():
            if self._shown.get(key) != text:
                click.echo(text)
        if verify and self._shown.get("verify") != verify:
            click.echo(picture.verify)
        self._shown = {**texts, "verify": verify}


def plain_line(line: TaskLine) -> str:
    """ "1/3: preparing"."""
    return f"{line.label}: {one_line(line.text)}"


def bar_line(line: TaskLine) -> str:
    """ "1/3: preparing [=================================>                 ]"."""
    if not line.step:
        return plain_line(line)
    done = _BAR * line.step // LAST_STEP
    head = "=" * max(0, done - 1) + ">"
    return f"{plain_line(line):<16} [{head:<{_BAR}}]"

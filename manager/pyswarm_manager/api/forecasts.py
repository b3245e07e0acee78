"""Forecasts: an imagined cluster's course in the words of the API, with the images that nodes lack.

Pure but for the one question which images a node has; decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pyswarm.v1 import plans_pb2 as pb
from pyswarm_common.model import Service, ServiceMode, Task, TaskState
from pyswarm_manager.planner.foresight.course import Step, outcome_of
from pyswarm_manager.planner.foresight.imagined import Imagined, IsOver
from pyswarm_manager.store.changes import Change
from pyswarm_manager.store.tables import Tables

Inventory = Callable[[str], Collection[str] | None]
"""The images that a node has, by its id; None if nobody knows."""

MAX_STEPS = 10_000
"""Of more tasks only the first are told one by one."""


@dataclass(frozen=True, slots=True)
class Question:
    """What happens to a copy of the tables, which is used up, by changes that would be proposed."""

    tables: Tables
    changes: Sequence[Change]
    targets: Collection[str]
    """Ids of the services that are asked about."""
    now: float


def forecast(question: Question, is_over: IsOver) -> pb.Forecast:
    """Let everything go on until nothing moves, and tell what happened. Takes long: not for the loop."""
    tables, targets, index = question.tables, question.targets, question.tables.index
    imagined = Imagined(tables, question.now)
    imagined.apply(question.changes)
    ended = imagined.run(is_over)
    steps = imagined.course.steps(tables)
    waiting = sorted(imagined.course.waiting(tables, targets), key=lambda task: (task.service_name, task.slot))
    found = pb.Forecast(index=index, takes_s=imagined.elapsed_s, cut_off=not ended)
    found.outcome = outcome_of(steps, waiting)
    found.tasks.extend(_planned(tables, step) for step in steps[:MAX_STEPS])
    found.pending.extend(_pending(task) for task in waiting[:MAX_STEPS])
    found.notes.extend(_notes(tables, targets, len(steps)))
    return found


def add_images(found: pb.Forecast, inventory: Inventory) -> None:
    """What the nodes that get tasks must fetch. On the loop: what nodes have changes there."""
    seen: dict[tuple[str, str], pb.PlannedTask] = {}
    for task in found.tasks:
        if task.kind != pb.PLANNED_KIND_STOP and task.image:
            seen.setdefault((task.to_node_id, task.image), task)
    for (node_id, image), task in seen.items():
        has = inventory(node_id)
        if has is None or not _has(has, image):
            found.images.add(node_id=node_id, hostname=task.to_hostname, image=image, unknown=has is None)


def _has(images: Collection[str], image: str) -> bool:
    """Agents tell what they have as docker shows it: without docker.io and its library, and with a tag."""
    name = image.removeprefix("docker.io/").removeprefix("library/")
    if "@" not in name and ":" not in name.rpartition("/")[2]:
        name += ":latest"
    return name in images or image in images


def _planned(tables: Tables, step: Step) -> pb.PlannedTask:
    old, new, task = step.old, step.new, step.task
    from_id = old.node_id if old is not None else ""
    to_id = new.node_id if new is not None else ""
    return pb.PlannedTask(
        kind=step.kind.value,  # type: ignore[arg-type]  # the same numbers
        service_id=task.service_id,
        service_name=task.service_name,
        task_name=task.name,
        task_id=old.id if old is not None else "",
        from_node_id=from_id,
        from_hostname=_hostname(tables, from_id),
        to_node_id=to_id,
        to_hostname=_hostname(tables, to_id),
        image=task.spec.container.image,
        at_s=step.at_s,
        cause=new.cause if new is not None else "",
    )


def _pending(task: Task) -> pb.PendingTask:
    reason = task.status.err or task.status.message
    return pb.PendingTask(
        service_id=task.service_id, service_name=task.service_name, task_name=task.name, reason=reason
    )


def _notes(tables: Tables, targets: Iterable[str], steps: int) -> Iterator[str]:
    if steps > MAX_STEPS:
        yield f"only the first {MAX_STEPS} of {steps} tasks are listed"
    for service_id in targets:
        service = tables.services.get(service_id)
        if service is not None:
            yield from _notes_of(tables, service)


def _notes_of(tables: Tables, service: Service) -> Iterator[str]:
    name, status = service.spec.name, service.update_status
    if service.spec.mode is ServiceMode.CRON:
        yield f"{name}: what its schedule starts later is not in the plan"
    elif service.spec.mode.is_job:
        yield f"{name}: is taken to run on, as nobody knows how long it takes; its further tasks start when those end"
    if status is not None and status.state.is_paused:
        yield f"{name}: {status.message}"
    if any(task.desired_state is TaskState.READY for task in tables.service_tasks(service.id)):
        yield f"{name}: some of its tasks are prepared, and wait for others before they start"


def _hostname(tables: Tables, node_id: str) -> str:
    node = tables.nodes.get(node_id)
    return node.description.hostname if node is not None else ""

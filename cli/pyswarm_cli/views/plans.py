"""Plans and losses as text: what becomes of which task, which images are fetched, what waits. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from pyswarm.v1 import plans_pb2 as pb
from pyswarm_cli.output.rows import Columns, show

Json = dict[str, Any]

_KINDS = {
    pb.PLANNED_KIND_START: "start",
    pb.PLANNED_KIND_STOP: "stop",
    pb.PLANNED_KIND_MOVE: "move",
    pb.PLANNED_KIND_REPLACE: "replace",
}
_COLUMNS = Columns(
    headings={"Task": "TASK", "Action": "ACTION", "From": "FROM", "To": "TO", "Image": "IMAGE", "At": "AT"},
    table=("Task", "Action", "From", "To", "Image", "At"),
)


def plan_text(found: pb.Forecast) -> str:
    """What `--plan` prints."""
    head = f"Plan made at version {found.index}. Nothing was changed.\n"
    return head + "".join(f"{line}\n" for line in _body(found)) + "".join(f"{line}\n" for line in _verdict(found))


def loss_text(answer: pb.SimulateLossResponse) -> str:
    """What `simulate loss` prints."""
    found = answer.forecast
    lines = [f"Seen from version {found.index}. Nothing was changed.", "", "Lost:", *_lost(answer.nodes), ""]
    lines += [*_quorum(answer.quorum), *_outages(answer.outages)]
    if not answer.quorum.holds:
        lines += ["", "Once the managers have a majority again:"]
    return "".join(f"{line}\n" for line in (*lines, *_body(found), *_verdict(found)))


def summary(found: pb.Forecast) -> str:
    """In one line."""
    counts = Counter(_KINDS[task.kind] for task in found.tasks)
    words = {"start": "started", "stop": "stopped", "move": "moved", "replace": "replaced in place"}
    parts = [f"{_tasks(counts[kind])} {word}" for kind, word in words.items() if counts[kind]]
    return ", ".join(parts) or "no task is touched"


def forecast_json(found: pb.Forecast) -> Json:
    """For --format."""
    return {
        "Version": found.index,
        "Fits": not found.pending,
        "Complete": not found.cut_off,
        "Seconds": found.takes_s,
        "Tasks": [_task_json(task) for task in found.tasks],
        "Images": [
            {"Node": item.hostname, "NodeID": item.node_id, "Image": item.image, "Known": not item.unknown}
            for item in found.images
        ],
        "Pending": [
            {"Service": task.service_name, "Task": task.task_name, "Reason": task.reason} for task in found.pending
        ],
        "Notes": list(found.notes),
    }


def loss_json(answer: pb.SimulateLossResponse) -> Json:
    """For --format."""
    quorum = answer.quorum
    return forecast_json(answer.forecast) | {
        "Lost": [
            {
                "ID": node.node_id,
                "Node": node.hostname,
                "Manager": node.is_manager,
                "Down": node.already_down,
                "RunningTasks": node.tasks,
            }
            for node in answer.nodes
        ],
        "Quorum": {
            "Managers": quorum.managers,
            "Lost": quorum.lost,
            "Reachable": quorum.reachable,
            "Majority": quorum.majority,
            "Holds": quorum.holds,
            "LosesLeader": quorum.loses_leader,
        },
        "Outages": [{"Service": item.service_name, "Recovers": item.recovers} for item in answer.outages],
    }


def _task_json(task: pb.PlannedTask) -> Json:
    return {
        "Action": _KINDS[task.kind],
        "Service": task.service_name,
        "Task": task.task_name,
        "ID": task.task_id,
        "From": task.from_hostname or task.from_node_id,
        "FromID": task.from_node_id,
        "To": task.to_hostname or task.to_node_id,
        "ToID": task.to_node_id,
        "Image": task.image,
        "At": task.at_s,
        "Cause": task.cause,
    }


def _body(found: pb.Forecast) -> Iterator[str]:
    if found.tasks:
        yield ""
        rows = ({**_task_json(task), "Task": _name(task), "At": f"{task.at_s:.0f}s"} for task in found.tasks)
        yield from show(({key: value or "-" for key, value in row.items()} for row in rows), _COLUMNS).splitlines()
    if found.images:
        yield from ("", "Images to fetch:", *_images(found.images))
    if found.pending:
        yield from ("", "Would wait:", *(f"  {task.task_name}: {task.reason}" for task in found.pending))
    if found.notes:
        yield from ("", *found.notes)


def _verdict(found: pb.Forecast) -> Iterator[str]:
    yield ""
    fits = "it fits" if not found.pending else f"it does not fit: {_tasks(len(found.pending))} would wait"
    yield f"{summary(found)}; {fits}"
    if found.takes_s >= 1:
        yield f"this takes {found.takes_s:.0f} s, and as long as the containers need to start and stop"
    if found.cut_off:
        yield "this is not all: it was cut off, as it takes too long to foresee"


def _images(images: Iterable[pb.ImageFetch]) -> Iterator[str]:
    for item in images:
        doubt = " (if it has not: nobody knows now what it has)" if item.unknown else ""
        yield f"  {item.hostname or item.node_id}: {item.image}{doubt}"


def _lost(nodes: Iterable[pb.LostNode]) -> Iterator[str]:
    for node in nodes:
        what = "manager" if node.is_manager else "worker"
        state = ", is down already" if node.already_down else ""
        yield f"  {node.hostname or node.node_id} ({what}, {_tasks(node.tasks)} running{state})"


def _quorum(quorum: pb.QuorumEffect) -> Iterator[str]:
    if not quorum.lost:
        yield "Managers: none of those that vote is lost."
        return
    left = f"{quorum.reachable} of {quorum.managers} managers would be reachable, and {quorum.majority} must be"
    if quorum.holds:
        leader = "; another one becomes the leader" if quorum.loses_leader else ""
        yield f"Managers: {left}: the swarm goes on{leader}."
    else:
        yield f"Managers: {left}: NO QUORUM. What runs on other nodes goes on, and nothing can be changed or replaced."


def _outages(outages: Iterable[pb.Outage]) -> Iterator[str]:
    for item in outages:
        then = "until its tasks run elsewhere" if item.recovers else "and nothing takes its place"
        yield f"{item.service_name}: no task of it runs {then}."


def _name(task: pb.PlannedTask) -> str:
    """A task of a global service is called by its node, which has a column of its own."""
    node = task.to_node_id or task.from_node_id
    return task.service_name if task.task_name.endswith(f".{node}") else task.task_name


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"

"""Explanations of the scheduler as text: sentences, a table of nodes, and what would help. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyswarm.v1 import scheduling_pb2 as pb
from pyswarm_cli.output.rows import Columns, show
from pyswarm_common.model import TaskState

Json = dict[str, Any]
_UNPLACED = TaskState.ASSIGNED

NODE_COLUMNS = Columns(
    headings={
        "Node": "NODE",
        "Verdict": "VERDICT",
        "Spread": "SPREAD",
        "Own": "OWN",
        "Tasks": "TASKS",
        "Reserved": "RESERVED",
        "Notes": "NOTES",
        "ID": "ID",
    },
    table=("Node", "Verdict", "Spread", "Own", "Tasks", "Reserved", "Notes"),
)


def task_text(answer: pb.ExplainTaskResponse) -> str:
    """What `task why` prints."""
    return "".join(f"{line}\n" for line in _headline(answer)) + details(answer)


def details(answer: pb.ExplainTaskResponse) -> str:
    text = ""
    if answer.nodes:
        text += "\n" + show((node_row(node) for node in answer.nodes), NODE_COLUMNS)
        hidden = answer.nodes_total - len(answer.nodes)
        text += f"… and {hidden} more nodes (--limit shows more)\n" if hidden else ""
    return text + "".join(f"{line}\n" for line in _help(answer))


def task_json(answer: pb.ExplainTaskResponse) -> Json:
    """For --format."""
    return {
        "ID": answer.task.id,
        "Name": _name(answer),
        "State": TaskState(answer.task.status.state).name.lower(),
        "Summary": answer.summary or answer.task.status.message,
        "Nodes": [node_row(node) | {"Refusals": list(node.refusals), "Chosen": node.chosen} for node in answer.nodes],
        "NodesTotal": answer.nodes_total,
        "Suggestions": [list(suggestion.parts) for suggestion in answer.suggestions],
        "OneMoreNode": answer.one_more_node,
    }


def service_text(answer: pb.ExplainServiceResponse) -> str:
    """What `service why` prints."""
    lines = [f"{answer.service.spec.name}:", *(f"  {finding}" for finding in answer.findings)]
    text = "".join(f"{line}\n" for line in lines)
    if answer.HasField("waiting"):
        text += f"\n{_name(answer.waiting)} waits:\n" + details(answer.waiting)
    return text


def service_json(answer: pb.ExplainServiceResponse) -> Json:
    """For --format."""
    found: Json = {
        "ID": answer.service.id,
        "Name": answer.service.spec.name,
        "Findings": list(answer.findings),
        "Waiting": None,
    }
    if answer.HasField("waiting"):
        found["Waiting"] = task_json(answer.waiting)
    return found


def node_row(node: pb.NodeVerdict) -> Json:
    return {
        "ID": node.node_id,
        "Node": node.hostname,
        "Verdict": _verdict(node),
        "Spread": "/".join(str(count) for count in node.spread) or "-",
        "Own": node.own_tasks,
        "Tasks": node.tasks,
        "Reserved": f"{node.reserved:.0%}",
        "Notes": "; ".join(_notes(node)),
    }


def _headline(answer: pb.ExplainTaskResponse) -> Iterator[str]:
    state = TaskState(answer.task.status.state).name.lower()
    where = next((f" on {node.hostname}" for node in answer.nodes if node.chosen), "")
    yield f"{_name(answer)} ({answer.task.id}) is {state}{where}"
    if answer.summary:
        yield f"  {answer.summary}"
    if answer.nodes and answer.task.status.state >= _UNPLACED and answer.task.desired_state <= TaskState.RUNNING:
        order = "the fullest" if answer.packs else "the one with the fewest tasks"
        yield f"  Were it placed now, {order} of the nodes that fit would be taken; without itself they stand so:"


def _help(answer: pb.ExplainTaskResponse) -> Iterator[str]:
    options = [", and ".join(suggestion.parts) for suggestion in answer.suggestions]
    if answer.one_more_node:
        options.append(answer.one_more_node)
    if options:
        yield ""
        yield "Any one of these would help:"
        yield from (f"  - {option}" for option in options)


def _name(answer: pb.ExplainTaskResponse) -> str:
    task = answer.task
    return f"{task.service_name}.{task.slot or task.node_id}"


def _verdict(node: pb.NodeVerdict) -> str:
    if node.chosen:
        return "chosen" if not node.refusals else "there, but unfit"
    return "fits" if not node.refusals else "no"


def _notes(node: pb.NodeVerdict) -> Iterator[str]:
    yield from node.refusals
    if node.failures:
        yield f"failed there {node.failures} times lately: comes last"
    if node.second_choice:
        yield "second choice by a taint"
    if node.wish:
        yield f"affinity {node.wish:+d}"

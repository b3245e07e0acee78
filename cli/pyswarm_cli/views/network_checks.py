"""Network checks as text and as JSON: one paragraph per node, one line per step. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pyswarm.v1 import network_checks_pb2 as pb

Json = dict[str, Any]
_MARKS = {
    pb.TraceStep.OUTCOME_OK: "ok",
    pb.TraceStep.OUTCOME_WARNING: "odd",
    pb.TraceStep.OUTCOME_STOP: "STOP",
    pb.TraceStep.OUTCOME_THROUGH: "ok",
}
_OUTCOMES = {
    pb.TraceStep.OUTCOME_OK: "ok",
    pb.TraceStep.OUTCOME_WARNING: "warning",
    pb.TraceStep.OUTCOME_STOP: "stop",
    pb.TraceStep.OUTCOME_THROUGH: "through",
}


def node_text(answer: pb.NodeNetworks) -> str:
    """What `network verify` prints of one node."""
    return "".join(f"{line}\n" for line in _node_lines(answer))


def _node_lines(answer: pb.NodeNetworks) -> Iterator[str]:
    found = sum(len(finding.problems) for finding in answer.findings)
    left = sum(len(finding.left) for finding in answer.findings)
    if not found:
        verdict = "everything is as wanted"
    elif not left:
        verdict = f"{_many(found, 'problem')} found and repaired"
    else:
        verdict = f"{_many(found, 'problem')} found, {left} not repaired"
    yield f"{answer.node_hostname}: checked {_checked(answer)}: {verdict}"
    for finding in answer.findings:
        where = _where(finding)
        still = set(finding.left)
        for problem in finding.problems:
            yield f"  {'wrong' if problem in still else 'repaired'}: {where}: {problem}"
        for problem in finding.left:
            if problem not in finding.problems:
                yield f"  wrong: {where}: {problem}"
    for table in answer.tables:
        if is_stale(table):
            yield f"  stale: the table of network {table.name} is of version {table.held}, not {table.current}"


def _where(finding: pb.NetworkFinding) -> str:
    if finding.kind == "host":
        return "host"
    return f"{finding.kind} {finding.name or finding.id[:12]}" + (f" ({finding.id[:12]})" if finding.name else "")


def _checked(answer: pb.NodeNetworks) -> str:
    named = [f"{number} {what}" for what, number in sorted(answer.checked.items()) if number]
    tables = f"{_many(len(answer.tables), 'table')}"
    return ", ".join([*named, tables])


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def is_stale(table: pb.TableVersion) -> bool:
    """Whether the node holds less than the managers had when it was asked."""
    return table.held < table.current


def is_well(answer: pb.NodeNetworks, *, dry_run: bool) -> bool:
    """Whether nothing is left wrong (or, if only looked at, nothing is wrong)."""
    wrong = answer.findings if dry_run else [finding for finding in answer.findings if finding.left]
    return not answer.away and not wrong and not any(is_stale(table) for table in answer.tables)


def node_json(answer: pb.NodeNetworks) -> Json:
    return {
        "ID": answer.node_id,
        "Hostname": answer.node_hostname,
        "Away": answer.away,
        "Checked": dict(sorted(answer.checked.items())),
        "Findings": [
            {
                "Kind": finding.kind,
                "ID": finding.id,
                "Name": finding.name,
                "Problems": list(finding.problems),
                "Left": list(finding.left),
            }
            for finding in answer.findings
        ],
        "Tables": [
            {
                "NetworkID": table.network_id,
                "Name": table.name,
                "Version": table.held,
                "Current": table.current,
                "Stale": is_stale(table),
            }
            for table in answer.tables
        ],
        "Repairs": answer.repairs,
    }


def step_text(step: pb.TraceStep) -> str:
    """What `network trace` prints of one step; the verdict stands alone."""
    if step.step == "verdict":
        return f"{step.text}\n"
    where = f" [{step.node_hostname}]" if step.node_hostname else ""
    return f"{_MARKS.get(step.outcome, '?'):<5}{step.step:<10}{step.text}{where}\n"


def trace_json(steps: Iterable[pb.TraceStep]) -> Json:
    known = list(steps)
    return {
        "Steps": [
            {
                "Step": step.step,
                "Outcome": _OUTCOMES.get(step.outcome, ""),
                "Node": step.node_hostname,
                "Text": step.text,
            }
            for step in known
        ],
        "Through": goes_through(known),
    }


def goes_through(steps: Iterable[pb.TraceStep]) -> bool:
    """Whether the last word is that it does."""
    outcomes = [step.outcome for step in steps]
    return bool(outcomes) and outcomes[-1] == pb.TraceStep.OUTCOME_THROUGH

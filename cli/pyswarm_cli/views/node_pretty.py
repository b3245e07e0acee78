"""`node inspect --pretty`: what docker prints, and what is reserved and free. Pure: the JSON of `inspected.node` in."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.output.words import printable
from pyswarm_cli.views.node_resources import cpus, memory

Json = dict[str, Any]
_WIDTH = 24


def pretty(node: Json) -> str:
    """One node; ends with a line feed."""
    about, status = node["Description"], node["Status"]
    lines = [_line("ID:", node["ID"])]
    lines += _labels("Labels:", node["Spec"]["Labels"])
    lines += [_line("Hostname:", about["Hostname"]), _line("Joined at:", node["CreatedAt"]), "Status:"]
    lines += [_line(" State:", _word(status.get("State", ""))), _line(" Message:", status.get("Message", ""))]
    lines += [_line(" Availability:", _word(node["Spec"]["Availability"])), _line(" Address:", status.get("Addr", ""))]
    lines += _drain(node) + _manager(node.get("ManagerStatus")) + _platform(about["Platform"])
    lines += _resources(node.get("Resources") or {"Total": about["Resources"]})
    lines.append(_line("Engine Version:", about["Engine"].get("EngineVersion", "")))
    lines += _labels("Engine Labels:", about["Engine"].get("Labels") or {})
    lines += ["Warnings:", *(f" - {warning}" for warning in node["Warnings"])] if node.get("Warnings") else []
    return "".join(f"{printable(line)}\n" for line in lines if line)


def _line(name: str, value: object) -> str:
    """Nothing where there is no value."""
    return f"{name:<{_WIDTH}}{value}" if value not in ("", None) else ""


def _word(text: str) -> str:
    return text.capitalize()


def _labels(title: str, labels: dict[str, str]) -> list[str]:
    return [title, *(f" - {key}={value}" for key, value in sorted(labels.items()))] if labels else []


def _drain(node: Json) -> list[str]:
    since = node.get("DrainStartedAt", "")
    return [_line(" Drained since:", since)] if since else []


def _manager(status: Json | None) -> list[str]:
    if status is None:
        return []
    return [
        "Manager Status:",
        _line(" Address:", status["Addr"]),
        _line(" Raft Status:", _word(status["Reachability"])),
        _line(" Leader:", "Yes" if status["Leader"] else "No"),
    ]


def _platform(platform: Json) -> list[str]:
    return [
        "Platform:",
        _line(" Operating System:", platform["OS"]),
        _line(" Architecture:", platform["Architecture"]),
    ]


def _resources(parts: Json) -> list[str]:
    lines = []
    for title, part in (("Resources:", "Total"), ("Reserved:", "Reserved"), ("Free:", "Free")):
        if part in parts:
            lines += [title, *_amounts(parts[part])]
    return [*lines, _line("Tasks:", parts.get("Tasks"))]


def _amounts(resources: Json) -> list[str]:
    lines = [
        _line(" CPUs:", cpus(resources.get("NanoCPUs", 0))),
        _line(" Memory:", memory(resources.get("MemoryBytes", 0))),
        _line(" Pids:", resources.get("Pids", "")),
    ]
    for item in resources.get("GenericResources", ()):
        ((_, spec),) = item.items()
        lines.append(_line(f" {spec['Kind']}:", spec["Value"]))
    return lines

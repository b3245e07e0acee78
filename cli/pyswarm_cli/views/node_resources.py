"""What nodes have, what is reserved of it and what is left, in docker's JSON and in words. Pure."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
_NANO = 1_000_000_000


def shown(resources: Any) -> Json:
    """A Resources message (or the object of the same name) as docker has it."""
    out: Json = {"NanoCPUs": resources.nano_cpus, "MemoryBytes": resources.memory_bytes}
    if resources.pids:
        out["Pids"] = resources.pids
    if resources.generic:
        out["GenericResources"] = [generic(item) for item in resources.generic]
    return {name: value for name, value in out.items() if value}


def generic(item: Any) -> Json:
    """As docker shows a resource of a node, or of a task."""
    if item.value:
        return {"NamedResourceSpec": {"Kind": item.kind, "Value": item.value}}
    return {"DiscreteResourceSpec": {"Kind": item.kind, "Value": item.count}}


def inspected(message: Any) -> Json:
    """A NodeResources message for `node inspect`."""
    return {
        "Total": shown(message.total),
        "Reserved": shown(message.reserved),
        "Free": shown(message.free),
        "Tasks": message.tasks,
    }


def cells(message: Any) -> dict[str, str]:
    """Cells of `node ls --resources`: what is reserved of what there is, and what is left."""
    return {
        "Tasks": str(message.tasks),
        "CPUs": _of(message, "nano_cpus", cpus),
        "Memory": _of(message, "memory_bytes", memory),
        "Pids": _of(message, "pids", str),
        "Generic": generic_words(message.free.generic, message.total.generic),
    }


def _of(message: Any, field: str, words: Any) -> str:
    total, reserved = getattr(message.total, field), getattr(message.reserved, field)
    if not total:
        return words(reserved) if reserved else "-"
    return f"{words(reserved)} / {words(total)}"


def cpus(nano_cpus: int) -> str:
    """ "1.5"."""
    return f"{nano_cpus / _NANO:.6f}".rstrip("0").rstrip(".")


def memory(size: int) -> str:
    """ "7.704GiB", as docker counts memory."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while abs(value) >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.4g}{units[0]}"


def generic_words(free: Any, total: Any) -> str:
    """What is left of each kind: "gpu 1 of 2, ssd 3 of 8"."""
    left, whole = _counted(free), _counted(total)
    return ", ".join(f"{kind} {left.get(kind, 0)} of {count} free" for kind, count in whole.items()) or "-"


def _counted(items: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in items:
        counts[item.kind] = counts.get(item.kind, 0) + (1 if item.value else item.count)
    return counts

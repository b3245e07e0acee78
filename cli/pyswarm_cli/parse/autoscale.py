""" "min=2,max=20,cpu=70,memory=80,down-window=5m,up-window=30s", and "none". Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pyswarm_cli.parse.quantities import count, duration_s
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import AutoscaleSpec

NO_AUTOSCALE = AutoscaleSpec()
"""What "none" is read as: nothing to aim at."""

_MAX_LENGTH = 256
_FIELDS: Mapping[str, tuple[str, Callable[[str], float]]] = {
    "min": ("min_replicas", count),
    "max": ("max_replicas", count),
    "cpu": ("cpu_percent", lambda text: count(text.removesuffix("%"))),
    "memory": ("memory_percent", lambda text: count(text.removesuffix("%"))),
    "down-window": ("scale_down_window_s", duration_s),
    "up-window": ("scale_up_window_s", duration_s),
}


def autoscale(text: str) -> AutoscaleSpec:
    """What `--autoscale` says; `NO_AUTOSCALE` for "none"."""
    if text == "none":
        return NO_AUTOSCALE
    if len(text) > _MAX_LENGTH:
        raise InvalidArgument(f"--autoscale is too long: {_MAX_LENGTH} characters at most")
    values: dict[str, float] = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        if not equals or key not in _FIELDS:
            raise InvalidArgument(
                f'invalid autoscale field "{part}": write for example min=2,max=20,cpu=70, '
                f"or none; fields are {', '.join(_FIELDS)}"
            )
        name, read = _FIELDS[key]
        if name in values:
            raise InvalidArgument(f'autoscale field "{key}" is given twice')
        values[name] = read(value)
    missing = [key for key in ("min", "max") if _FIELDS[key][0] not in values]
    if missing:
        raise InvalidArgument(f"autoscale needs {' and '.join(missing)}: write for example min=2,max=20,cpu=70")
    if "cpu_percent" not in values and "memory_percent" not in values:
        raise InvalidArgument("autoscale needs a percentage to aim at: cpu=70, memory=80 or both")
    return AutoscaleSpec(**values)  # type: ignore[arg-type]  # counts where counts belong, durations where they do

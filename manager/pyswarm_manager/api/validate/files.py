"""What a service may ask of secrets and configs: where they are put, and that no two are put at one place. Pure.

Whether they exist is looked up afterwards (`files.versions.resolved`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from pyswarm_common.model import ContainerSpec, FileReference
from pyswarm_manager.api.validate.fields import Violation, check_count, check_text, each, shown

MAX_REFERENCES: Final = 256
MAX_MODE: Final = 0o777
_ENV: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_ID: Final = re.compile(r"\d{1,10}")


def check_references(spec: ContainerSpec) -> Iterator[Violation]:
    """Of secrets and of configs."""
    for path, kind, items in (("secrets", "secret", spec.secrets), ("configs", "config", spec.configs)):
        yield from check_count(items, MAX_REFERENCES, path, path)
        targets: set[str] = set()
        for index, item in enumerate(items):
            yield from each(path, index, _check(item, kind))
            target = item.target or ("" if item.env else item.name or item.id)
            if target and target in targets:
                yield f"{path}[{index}].target", f"duplicate {kind} target for {shown(target)} not allowed"
            targets.add(target)
    yield from _check_variables(spec)


def _check(item: FileReference, kind: str) -> Iterator[Violation]:
    if not item.id and not item.name:
        yield "name", f"which {kind}? give its name or id"
    yield from check_text(item.target, "target", "target")
    if ".." in item.target.split("/"):
        yield "target", f"the target {shown(item.target)} must not lead upwards"
    if not 0 <= item.mode <= MAX_MODE:
        yield "mode", f"the mode {item.mode:o} is not one of permission bits (0 to 777)"
    for field, value in (("uid", item.uid), ("gid", item.gid)):
        if value and _ID.fullmatch(value) is None:
            yield field, f"the {field} {shown(value)} is not a number"
    if item.env and _ENV.fullmatch(item.env) is None:
        yield "env", f"{shown(item.env)} is not the name of an environment variable"


def _check_variables(spec: ContainerSpec) -> Iterator[Violation]:
    seen = {entry.partition("=")[0] for entry in spec.env}
    for path, items in (("secrets", spec.secrets), ("configs", spec.configs)):
        for index, item in enumerate(items):
            if item.env and item.env in seen:
                yield f"{path}[{index}].env", f"the environment variable {shown(item.env)} is set twice"
            seen.add(item.env)

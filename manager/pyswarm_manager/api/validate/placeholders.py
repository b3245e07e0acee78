"""Placeholders in a container's spec (`{{.Task.Slot}}`): whether they can be read; the task's node fills them in.

What a text with placeholders comes to is known there only, so the form of a host name or of a volume's name is checked
here only where it has none.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyswarm_common.model import ContainerSpec
from pyswarm_common.template_functions import TemplateError
from pyswarm_common.templates import Template
from pyswarm_manager.api.validate.fields import Violation, shown

MAX_LENGTH = 128 * 1024


def has_placeholders(text: str) -> bool:
    """Whether the node fills something in."""
    return "{{" in text


def check_placeholders(spec: ContainerSpec) -> Iterator[Violation]:
    """Of all that is filled in."""
    yield from _check("hostname", spec.hostname)
    for index, entry in enumerate(spec.env):
        yield from _check(f"env[{index}]", entry)
    for index, mount in enumerate(spec.mounts):
        yield from _check(f"mounts[{index}].source", mount.source)
        yield from _check(f"mounts[{index}].target", mount.target)


def _check(path: str, text: str) -> Iterator[Violation]:
    if not has_placeholders(text):
        return
    try:
        Template(text, max_length=MAX_LENGTH, is_typed=False)
    except TemplateError as error:
        yield path, f"expanding {shown(text)} failed: {error}"

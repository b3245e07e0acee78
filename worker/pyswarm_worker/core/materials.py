"""What a task's container gets of secrets, configs and placeholders: files, variables, its spec filled in. Pure.

Placeholders are docker's (Go templates): `{{.Service.Name}}`, `{{.Node.Hostname}}`, `{{.Task.Slot}}` and the like, in
the container's host name, environment and mounts, and in secrets and configs that ask for it; there `secret "name"`,
`config "name"` and `env "NAME"` stand for what the same container is given. Decides nothing about where files lie on
the node: `task_files` puts them there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from pyswarm_common.errors import InvalidArgument, NotFound
from pyswarm_common.model import Config, FileReference, Mount, NodeDescription, Secret, Task
from pyswarm_common.templates import Template

SECRETS_DIRECTORY: Final = "/run/secrets"
MAX_RENDERED: Final = 2 << 20
MAX_TEMPLATE: Final = 2 << 20
DEFAULT_MODE: Final = 0o444

Find = Callable[[str], Secret | Config | None]
"""A version by its id, if this node has it."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What placeholders may say of the node."""

    id: str
    hostname: str
    os: str = ""
    architecture: str = ""

    @classmethod
    def of(cls, node_id: str, description: NodeDescription) -> NodeFacts:
        return cls(node_id, description.hostname, description.os, description.architecture)


@dataclass(frozen=True, slots=True)
class File:
    """One file in the container."""

    target: str
    data: bytes
    uid: int
    gid: int
    mode: int

    def __repr__(self) -> str:
        return f"File({self.target!r}, …)"


@dataclass(frozen=True, slots=True)
class Materials:
    """What a task is given."""

    files: tuple[File, ...] = ()
    env: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Materials({self.files!r}, {len(self.env)} variables)"


def needed_ids(task: Task) -> tuple[str, ...]:
    """The versions that the task's container is given."""
    container = task.spec.container
    return tuple(dict.fromkeys(item.id for item in (*container.secrets, *container.configs)))


def materials_of(task: Task, node: NodeFacts, find: Find) -> Materials:
    """Raises NotFound where a version is missing, InvalidArgument where a template does not fit."""
    container = task.spec.container
    if not container.secrets and not container.configs:
        return Materials()
    filler = Filler(task, node, find)
    files, env = [], []
    for base, references in ((SECRETS_DIRECTORY, container.secrets), ("/", container.configs)):
        for reference in references:
            data = filler.data(reference)
            if reference.target:
                files.append(_file(base, reference, data))
            if reference.env:
                env.append(f"{reference.env}={_as_variable(reference, data)}")
    return Materials(tuple(files), tuple(env))


def filled_in(task: Task, node: NodeFacts) -> Task:
    """The task with the placeholders of its container's spec filled in; the same object where there are none."""
    container = task.spec.container
    filler = Filler(task, node, lambda _: None)
    changed = replace(
        container,
        hostname=filler.text(container.hostname, "the host name"),
        env=tuple(filler.text(entry, "the environment") for entry in container.env),
        mounts=tuple(_filled_mount(filler, mount) for mount in container.mounts),
    )
    return task if changed == container else replace(task, spec=replace(task.spec, container=changed))


def _filled_mount(filler: Filler, mount: Mount) -> Mount:
    return replace(mount, source=filler.text(mount.source, "a mount"), target=filler.text(mount.target, "a mount"))


class Filler:
    """Fills placeholders in for one task."""

    def __init__(self, task: Task, node: NodeFacts, find: Find) -> None:
        self._container = task.spec.container
        self._find = find
        self._values = _values(task, node)
        self._functions: Mapping[str, Callable[..., Any]] = {
            "secret": lambda name: self._named(self._container.secrets, "secret", name),
            "config": lambda name: self._named(self._container.configs, "config", name),
            "env": self._variable,
        }

    def text(self, text: str, what: str) -> str:
        """Of the container's own spec."""
        if "{{" not in text:
            return text
        return self._render(text, {}, what)

    def data(self, reference: FileReference) -> bytes:
        """Of a secret or config, filled in where it asks for that."""
        item = self._find(reference.id)
        if item is None:
            raise NotFound(f"{reference.name or reference.id} has not come to this node: was it removed?")
        if not item.spec.templating:
            return item.spec.data
        try:
            text = item.spec.data.decode()
        except UnicodeDecodeError:
            raise InvalidArgument(f"{item.spec.name} asks for placeholders to be filled in, but is no text") from None
        return self._render(text, self._functions, item.spec.name).encode()

    def _render(self, text: str, functions: Mapping[str, Callable[..., Any]], what: str) -> str:
        try:
            rendered = Template(text, functions, max_length=MAX_TEMPLATE, is_typed=False).render(self._values)
        except InvalidArgument as error:
            # The text may be a secret: the reason names fields and functions only.
            raise InvalidArgument(f"placeholders in {what} cannot be filled in: {error}") from None
        if len(rendered) > MAX_RENDERED:
            raise InvalidArgument(f"{what} is larger than {MAX_RENDERED} bytes with its placeholders filled in")
        return rendered

    def _named(self, references: tuple[FileReference, ...], kind: str, name: str) -> str:
        """As it is: what is filled in is not filled in again."""
        for reference in references:
            if name in (reference.target, reference.name):
                item = self._find(reference.id)
                if item is not None:
                    return item.spec.data.decode(errors="replace")
        raise InvalidArgument(f'the container is given no {kind} "{name}"')

    def _variable(self, name: str) -> str:
        for entry in self._container.env:
            key, _, value = entry.partition("=")
            if key == name:
                return value
        return ""


def _values(task: Task, node: NodeFacts) -> dict[str, Any]:
    return {
        "Service": {"ID": task.service_id, "Name": task.service_name, "Labels": dict(task.labels)},
        "Node": {
            "ID": node.id,
            "Hostname": node.hostname,
            "Platform": {"OS": node.os, "Architecture": node.architecture},
        },
        "Task": {"ID": task.id, "Name": f"{task.name}.{task.id}", "Slot": task.slot or task.node_id},
    }


def _file(base: str, reference: FileReference, data: bytes) -> File:
    target = reference.target if reference.target.startswith("/") else f"{base.rstrip('/')}/{reference.target}"
    return File(target, data, int(reference.uid or 0), int(reference.gid or 0), reference.mode or DEFAULT_MODE)


def _as_variable(reference: FileReference, data: bytes) -> str:
    """Without the line end that editors add, as shells take it off in `$(…)`."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(f"{reference.name} is no text, and cannot be in the environment") from None
    if "\0" in text:
        raise InvalidArgument(f"{reference.name} holds a zero byte, and cannot be in the environment")
    return text.rstrip("\n")

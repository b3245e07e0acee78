"""The container of a service, from flags.

Pure: environment and files come as arguments. Who acts next: the manager validates, the agents make it true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from pyswarm_cli.parse.pairs import environment, environment_file, merge_environment
from pyswarm_cli.service.parts.health import health
from pyswarm_cli.service.parts.pieces import Options, items, pairs_changed, with_given, words
from pyswarm_common.model import ContainerSpec


def create_container(image: str, args: Sequence[str], options: Options, own: Mapping[str, str]) -> ContainerSpec:
    """The image, and what create gives as whole lists."""
    return ContainerSpec(
        image=image,
        args=tuple(args),
        env=tuple(_environment(options, own)),
        labels=dict(options["container_label"]),
        mounts=tuple(options["mount"]),
        dns=tuple(options["dns"]),
        hosts=tuple(options["host"]),
        sysctls=dict(options["sysctl"]),
    )


def _environment(options: Options, own: Mapping[str, str]) -> list[str]:
    variables: list[str] = []
    for file in options["env_file"]:
        variables = merge_environment(variables, environment_file(file.read(), own))
    return merge_environment(variables, environment(options["env"], own))


def apply_to_container(container: ContainerSpec, options: Options) -> ContainerSpec:
    """The flags that create and update share."""
    entrypoint = options["entrypoint"]
    return with_given(
        container,
        command=None if entrypoint is None else words(entrypoint, "entrypoint"),
        hostname=options["hostname"],
        dir=options["workdir"],
        user=options["user"],
        stop_signal=options["stop_signal"],
        stop_grace_period_s=options["stop_grace_period"],
        healthcheck=health(container.healthcheck, options),
        init=options["init"],
        tty=options["tty"],
        read_only=options["read_only"],
        cap_add=_capabilities(container.cap_add, options["cap_add"], options["cap_drop"]),
        cap_drop=_capabilities(container.cap_drop, options["cap_drop"], options["cap_add"]),
    )


def _capabilities(have: tuple[str, ...], more: Sequence[str], fewer: Sequence[str]) -> tuple[str, ...]:
    """Docker's rule: adding what was dropped ends the drop, and the other way round."""
    away = {_capability(name) for name in fewer}
    kept = [name for name in have if name not in away]
    return tuple(dict.fromkeys([*kept, *(_capability(name) for name in more)]))


def _capability(name: str) -> str:
    upper = name.upper()
    return upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"


def change_container(container: ContainerSpec, options: Options, own: Mapping[str, str]) -> ContainerSpec:
    """What update adds to lists and takes from them."""
    gone = {entry.partition("=")[0] for entry in options["env_rm"]}
    kept = [entry for entry in container.env if entry.partition("=")[0] not in gone]
    added = {mount.target for mount in options["mount_add"]} | set(options["mount_rm"])
    return replace(
        container,
        image=options["image"] or container.image,
        args=container.args if options["args"] is None else words(options["args"], "args"),
        env=tuple(merge_environment(kept, environment(options["env_add"], own))),
        labels=pairs_changed(container.labels, options["container_label_add"], options["container_label_rm"]),
        mounts=(*(mount for mount in container.mounts if mount.target not in added), *options["mount_add"]),
        dns=items(container.dns, options["dns_add"], options["dns_rm"]),
        hosts=items(container.hosts, options["host_add"], options["host_rm"]),
        sysctls=pairs_changed(container.sysctls, options["sysctl_add"], options["sysctl_rm"]),
    )

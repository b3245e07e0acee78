"""The container of a service, from flags.

Pure: environment and files come as arguments. Who acts next: the manager validates, the agents make it true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from pyswarm_cli.parse.pairs import environment, environment_file, merge_environment
from pyswarm_cli.service.parts.health import health
from pyswarm_cli.service.parts.pieces import Options, items, keyed, pairs_changed, with_given, words
from pyswarm_common.model import ContainerSpec, DeviceMapping, FileReference, LogDriver, Ulimit


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
        groups=tuple(options["group"]),
        dns_options=tuple(options["dns_option"]),
        dns_search=tuple(options["dns_search"]),
        ulimits=keyed((), options["ulimit"], (), _ulimit_name),
        devices=keyed((), options["device"], (), _device_path),
        secrets=tuple(options["secret"]),
        configs=tuple(options["config"]),
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
        isolation=options["isolation"],
        oom_score_adj=options["oom_score_adj"],
        log_driver=_log_driver(container.log_driver, options),
        privileged=options["privileged"],
        shm_size_bytes=options["shm_size"],
        pid_mode=options["pid"],
        ipc_mode=options["ipc"],
        **{option.name: option.value for option in options["security_opt"]},
    )


def _log_driver(driver: LogDriver | None, options: Options) -> LogDriver | None:
    """A driver that is named replaces the old one and its options; options alone change those that there are."""
    name, given = options["log_driver"], dict(options["log_opt"])
    if name is not None:
        return LogDriver(name=name, options=given)
    if not given:
        return None
    old = driver or LogDriver()
    return LogDriver(name=old.name, options={**old.options, **given})


def _files(
    have: tuple[FileReference, ...], add: Sequence[FileReference], remove: Sequence[str]
) -> tuple[FileReference, ...]:
    """Removed by name or id; what is added takes the place of what was at its target."""
    taken = {item.target or item.name for item in add}
    kept = [item for item in have if item.name not in remove and item.id not in remove and item.target not in taken]
    return (*kept, *add)


def _ulimit_name(limit: Ulimit) -> str:
    return limit.name


def _device_path(device: DeviceMapping) -> str:
    return device.container_path or device.host_path


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
        groups=items(container.groups, options["group_add"], options["group_rm"]),
        dns_options=items(container.dns_options, options["dns_option_add"], options["dns_option_rm"]),
        dns_search=items(container.dns_search, options["dns_search_add"], options["dns_search_rm"]),
        ulimits=keyed(container.ulimits, options["ulimit_add"], options["ulimit_rm"], _ulimit_name),
        devices=keyed(container.devices, options["device_add"], options["device_rm"], _device_path),
        secrets=_files(container.secrets, options["secret_add"], options["secret_rm"]),
        configs=_files(container.configs, options["config_add"], options["config_rm"]),
    )

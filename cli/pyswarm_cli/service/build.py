"""From flags to a ServiceSpec, and from a ServiceSpec and flags to the next one.

Pure: environment and files come as arguments, networks that must be resolved come resolved. A flag that was not given
(None, or an empty list) changes nothing. Who acts next: the commands send the spec to the manager, which validates it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from pyswarm_cli.parse.attachments import port_number
from pyswarm_cli.parse.pairs import environment, environment_file, mapping, merge_environment
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import (
    ContainerSpec,
    EndpointMode,
    EndpointSpec,
    FailureAction,
    HealthCheck,
    NetworkAttachmentSpec,
    Placement,
    PortConfig,
    Protocol,
    ResourceRequirements,
    Resources,
    RestartCondition,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    Struct,
    TaskSpec,
    UpdateConfig,
    UpdateOrder,
)

Options = Mapping[str, Any]
S = TypeVar("S", bound=Struct)
T = TypeVar("T")
_DOCKER_DEFAULT_UPDATE = UpdateConfig(parallelism=1)


def create(image: str, args: Sequence[str], options: Options, own_environment: Mapping[str, str]) -> ServiceSpec:
    """The spec of a new service."""
    mode = ServiceMode[str(options["mode"]).upper()]
    if mode is ServiceMode.GLOBAL and options["replicas"] is not None:
        raise InvalidArgument("replicas can only be used with replicated mode; a global service has one task per node")
    container = ContainerSpec(
        image=image,
        args=tuple(args),
        env=tuple(_environment(options, own_environment)),
        labels=dict(options["container_label"]),
        mounts=tuple(options["mount"]),
        dns=tuple(options["dns"]),
        hosts=tuple(options["host"]),
        sysctls=dict(options["sysctl"]),
    )
    placement = Placement(constraints=tuple(options["constraint"]), preferences=tuple(options["placement_pref"]))
    spec = ServiceSpec(
        name=options["name"] or "",
        labels=dict(options["label"]),
        mode=mode,
        replicas=1 if mode is ServiceMode.REPLICATED else None,
        task=TaskSpec(container=container, placement=placement, networks=tuple(options["network"])),
        endpoint=EndpointSpec(ports=tuple(port for group in options["publish"] for port in group)),
    )
    return apply(spec, options)


def _environment(options: Options, own: Mapping[str, str]) -> list[str]:
    variables: list[str] = []
    for file in options["env_file"]:
        variables = merge_environment(variables, environment_file(file.read(), own))
    return merge_environment(variables, environment(options["env"], own))


def apply(spec: ServiceSpec, options: Options) -> ServiceSpec:
    """`spec` with the single-valued flags of create and update."""
    if options["replicas"] is not None and spec.mode is not ServiceMode.REPLICATED:
        raise InvalidArgument("replicas can only be used with replicated mode; a global service has one task per node")
    mode = None if options["endpoint_mode"] is None else EndpointMode[options["endpoint_mode"].upper()]
    return replace(
        spec,
        replicas=spec.replicas if options["replicas"] is None else options["replicas"],
        task=_apply_to_task(spec.task, options),
        update=_rollout(spec.update, options, "update"),
        rollback=_rollout(spec.rollback, options, "rollback"),
        endpoint=_with(spec.endpoint, mode=mode),
    )


def _apply_to_task(task: TaskSpec, options: Options) -> TaskSpec:
    return replace(
        task,
        container=_apply_to_container(task.container, options),
        resources=_apply_to_resources(task.resources, options),
        restart=_apply_to_restart(task.restart, options),
        placement=_with(task.placement, max_replicas_per_node=options["replicas_max_per_node"]),
    )


def _apply_to_container(container: ContainerSpec, options: Options) -> ContainerSpec:
    entrypoint = options["entrypoint"]
    return _with(
        container,
        command=None if entrypoint is None else words(entrypoint, "entrypoint"),
        hostname=options["hostname"],
        dir=options["workdir"],
        user=options["user"],
        stop_signal=options["stop_signal"],
        stop_grace_period_s=options["stop_grace_period"],
        healthcheck=_health(container.healthcheck, options),
        init=options["init"],
        tty=options["tty"],
        read_only=options["read_only"],
        cap_add=_capabilities(container.cap_add, options["cap_add"], options["cap_drop"]),
        cap_drop=_capabilities(container.cap_drop, options["cap_drop"], options["cap_add"]),
    )


def words(text: str, what: str) -> tuple[str, ...]:
    """A command line as its words, quotes as in a shell."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidArgument(f'invalid {what} "{text}": {error}') from None


def _capabilities(have: tuple[str, ...], more: Sequence[str], fewer: Sequence[str]) -> tuple[str, ...]:
    """Docker's rule: adding what was dropped ends the drop, and the other way round."""
    away = {_capability(name) for name in fewer}
    kept = [name for name in have if name not in away]
    return tuple(dict.fromkeys([*kept, *(_capability(name) for name in more)]))


def _capability(name: str) -> str:
    upper = name.upper()
    return upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"


def _health(check: HealthCheck | None, options: Options) -> HealthCheck | None:
    times = {
        "interval_s": options["health_interval"],
        "timeout_s": options["health_timeout"],
        "start_period_s": options["health_start_period"],
        "retries": options["health_retries"],
    }
    given = any(value is not None for value in times.values()) or options["health_cmd"] is not None
    if options["no_healthcheck"]:
        if given:
            raise InvalidArgument("--no-healthcheck conflicts with the other --health-* flags: give one or the other")
        return HealthCheck(test=("NONE",))
    if not given:
        return None
    command = options["health_cmd"]
    start = HealthCheck() if check is None or check.test == ("NONE",) else check
    return _with(start, test=None if command is None else ("CMD-SHELL", command), **times)


def _apply_to_resources(resources: ResourceRequirements, options: Options) -> ResourceRequirements:
    return _with(
        resources,
        limits=_with(_amounts(resources.limits, options, "limit"), pids=options["limit_pids"]),
        reservations=_amounts(resources.reservations, options, "reserve"),
    )


def _amounts(amounts: Resources, options: Options, kind: str) -> Resources:
    return _with(amounts, nano_cpus=options[f"{kind}_cpu"], memory_bytes=options[f"{kind}_memory"])


def _apply_to_restart(policy: RestartPolicy, options: Options) -> RestartPolicy:
    condition = options["restart_condition"]
    return _with(
        policy,
        condition=None if condition is None else RestartCondition[_enum_name(condition)],
        delay_s=options["restart_delay"],
        max_attempts=options["restart_max_attempts"],
        window_s=options["restart_window"],
    )


def _rollout(config: UpdateConfig | None, options: Options, kind: str) -> UpdateConfig | None:
    """The update or rollback policy; none stays none while no flag of it is given."""
    action, order = options[f"{kind}_failure_action"], options[f"{kind}_order"]
    values = {
        "parallelism": options[f"{kind}_parallelism"],
        "delay_s": options[f"{kind}_delay"],
        "failure_action": None if action is None else FailureAction[_enum_name(action)],
        "monitor_s": options[f"{kind}_monitor"],
        "max_failure_ratio": options[f"{kind}_max_failure_ratio"],
        "order": None if order is None else UpdateOrder[_enum_name(order)],
    }
    if all(value is None for value in values.values()):
        return config
    return _with(config or _DOCKER_DEFAULT_UPDATE, **values)


def _enum_name(text: str) -> str:
    return text.upper().replace("-", "_")


def _with(value: S, **changes: Any) -> S:
    """`value` with every change that is not None."""
    given = {name: change for name, change in changes.items() if change is not None}
    return replace(value, **given) if given else value


# ---------------------------------------------------------------- lists of `service update`


def change(
    spec: ServiceSpec, options: Options, own_environment: Mapping[str, str], network_ids: Mapping[str, str]
) -> ServiceSpec:
    """The spec that `service update` with these flags makes of `spec`. `network_ids`: of names in --network-rm."""
    spec = apply(spec, options)
    endpoint = replace(spec.endpoint, ports=_ports(spec.endpoint.ports, options))
    labels = _labels(spec.labels, options["label_add"], options["label_rm"])
    return replace(
        spec, labels=labels, endpoint=endpoint, task=_change_task(spec.task, options, own_environment, network_ids)
    )


def _change_task(task: TaskSpec, options: Options, own: Mapping[str, str], network_ids: Mapping[str, str]) -> TaskSpec:
    placement = replace(
        task.placement,
        constraints=_items(task.placement.constraints, options["constraint_add"], options["constraint_rm"]),
        preferences=_items(task.placement.preferences, options["placement_pref_add"], options["placement_pref_rm"]),
    )
    return replace(
        task,
        container=_change_container(task.container, options, own),
        placement=placement,
        networks=_networks(task.networks, options, network_ids),
        force_update=task.force_update + bool(options["force"]),
    )


def _change_container(container: ContainerSpec, options: Options, own: Mapping[str, str]) -> ContainerSpec:
    gone = {entry.partition("=")[0] for entry in options["env_rm"]}
    kept = [entry for entry in container.env if entry.partition("=")[0] not in gone]
    added = {mount.target for mount in options["mount_add"]} | set(options["mount_rm"])
    return replace(
        container,
        image=options["image"] or container.image,
        args=container.args if options["args"] is None else words(options["args"], "args"),
        env=tuple(merge_environment(kept, environment(options["env_add"], own))),
        labels=_labels(container.labels, options["container_label_add"], options["container_label_rm"]),
        mounts=(*(mount for mount in container.mounts if mount.target not in added), *options["mount_add"]),
        dns=_items(container.dns, options["dns_add"], options["dns_rm"]),
        hosts=_items(container.hosts, options["host_add"], options["host_rm"]),
        sysctls=_labels(container.sysctls, options["sysctl_add"], options["sysctl_rm"]),
    )


def _labels(labels: Mapping[str, str], add: Sequence[tuple[str, str]], remove: Sequence[str]) -> dict[str, str]:
    kept = {key: value for key, value in labels.items() if key not in remove}
    return {**kept, **dict(add)}


def _items(have: Sequence[T], add: Sequence[T], remove: Sequence[T]) -> tuple[T, ...]:
    """Without what is removed, then what is added and not there yet."""
    out = [item for item in have if item not in remove]
    out += [item for item in add if item not in out]
    return tuple(out)


def _ports(have: tuple[PortConfig, ...], options: Options) -> tuple[PortConfig, ...]:
    gone = {_target(text) for text in options["publish_rm"]}
    kept = [port for port in have if (port.target_port, port.protocol) not in gone]
    return _items(kept, [port for group in options["publish_add"] for port in group], ())


def _target(text: str) -> tuple[int, Protocol]:
    number, _, protocol = text.partition("/")
    name = (protocol or "tcp").upper()
    if name not in Protocol.__members__:
        raise InvalidArgument(f'invalid port "{text}": the protocol is tcp, udp or sctp')
    return port_number(number, text), Protocol[name]


def _networks(
    have: tuple[NetworkAttachmentSpec, ...], options: Options, ids: Mapping[str, str]
) -> tuple[NetworkAttachmentSpec, ...]:
    """Stored attachments name networks by id, users mostly by name."""
    gone = {ids.get(name, name) for name in options["network_rm"]}
    kept = [attachment for attachment in have if attachment.target not in gone]
    known = {attachment.target for attachment in kept}
    fresh = [item for item in options["network_add"] if ids.get(item.target, item.target) not in known]
    return (*kept, *fresh)


def labels_of(texts: Sequence[str]) -> dict[str, str]:
    """`--label key=value` of objects other than services."""
    return mapping(texts, "label")

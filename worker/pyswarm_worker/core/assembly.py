"""What a task means to the runtime and to the overlay: Task -> ContainerConfig and Sandbox. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import (
    DEFAULT_STOP_GRACE_PERIOD_S,
    DeviceMapping,
    GenericResource,
    LogDriver,
    Mount,
    MountType,
    Protocol,
    PublishMode,
    Task,
    Ulimit,
)
from pyswarm_overlay import types as overlay
from pyswarm_runtime import types as runtime
from pyswarm_runtime.log_drivers import log_settings

LABEL_TASK_ID = "com.pyswarm.task.id"
LABEL_TASK_NAME = "com.pyswarm.task.name"
LABEL_SERVICE_ID = "com.pyswarm.service.id"
LABEL_SERVICE_NAME = "com.pyswarm.service.name"
LABEL_NODE_ID = "com.pyswarm.node.id"
HOST_NETWORK = "host"
NO_NETWORK = "none"
HOST = "host"  # of pid and ipc modes

OPEN_FILES_SOFT, OPEN_FILES_HARD = 1024, 524288
"""Of a container, as docker's default: programs that close or poll every possible descriptor stay quick."""

PROTOCOLS: dict[Protocol, overlay.Protocol] = {Protocol.TCP: "tcp", Protocol.UDP: "udp", Protocol.SCTP: "sctp"}

_DNS_ADDRESS = "127.0.0.11"
_MOUNT_TYPES: dict[MountType, runtime.MountType] = {
    MountType.BIND: "bind",
    MountType.VOLUME: "volume",
    MountType.TMPFS: "tmpfs",
}


def uses_host_network(task: Task) -> bool:
    return any(network.target == HOST_NETWORK for network in task.spec.networks)


def own_address(task: Task) -> str:
    """The first that it has on a network; empty where it has none."""
    return next((address.partition("/")[0] for network in task.networks for address in network.addresses), "")


def container_name(task: Task) -> str:
    """`web.1.<task id>`, as docker names it."""
    return f"{task.name}.{task.id}"


def stop_grace_s(task: Task) -> float:
    grace = task.spec.container.stop_grace_period_s
    return DEFAULT_STOP_GRACE_PERIOD_S if grace is None else grace


def open_files(own_hard_limit: int) -> runtime.Ulimit:
    """A container's limit. Without CAP_SYS_RESOURCE none is higher than the daemon's own."""
    hard = min(own_hard_limit, OPEN_FILES_HARD)
    return runtime.Ulimit(name="nofile", soft=min(hard, OPEN_FILES_SOFT), hard=hard)


def generic_environment(resources: tuple[GenericResource, ...]) -> tuple[str, ...]:
    """What the task was given, as docker says it: `DOCKER_RESOURCE_GPU=UUID1,UUID2`."""
    by_kind: dict[str, list[str]] = {}
    for resource in resources:
        by_kind.setdefault(resource.kind, []).append(resource.value or str(resource.count))
    return tuple(f"DOCKER_RESOURCE_{kind.upper()}={','.join(values)}" for kind, values in by_kind.items())


def container_config(
    task: Task,
    netns_path: str,
    ulimits: tuple[runtime.Ulimit, ...] = (),
    files: tuple[runtime.Mount, ...] = (),
    private_env_path: str = "",
) -> runtime.ContainerConfig:
    """An empty `netns_path` is the host's own network. `files`: its secrets and configs, as they lie on this node."""
    spec, resources = task.spec.container, task.spec.resources
    log = spec.log_driver or LogDriver()
    settings = log_settings(log.name, log.options)
    # As docker: an overridden entrypoint takes the image's command out of play.
    command = spec.args if spec.args or spec.command else None
    return runtime.ContainerConfig(
        image=spec.image,
        name=container_name(task),
        entrypoint=spec.command or None,
        command=command,
        env=(*spec.env, *generic_environment(task.generic_resources)),
        working_dir=spec.dir,
        user=spec.user,
        hostname=spec.hostname,
        labels={**spec.labels, **_labels(task)},
        mounts=(*(_mount(mount) for mount in spec.mounts), *files),
        private_env_path=private_env_path,
        netns_path=netns_path or None,
        host_network=not netns_path,
        dns=(_DNS_ADDRESS,) if task.networks else spec.dns,
        dns_search=spec.dns_search,
        dns_options=_dns_options(spec.dns_options, is_ours=bool(task.networks)),
        extra_hosts=spec.hosts,
        nano_cpus=resources.limits.nano_cpus,
        memory_bytes=resources.limits.memory_bytes,
        memory_swap_bytes=resources.memory_swap_bytes,
        memory_swappiness=resources.memory_swappiness,
        pids_limit=resources.limits.pids,
        stop_signal=spec.stop_signal or None,
        stop_grace_s=stop_grace_s(task),
        tty=spec.tty,
        read_only=spec.read_only,
        cap_add=spec.cap_add,
        cap_drop=spec.cap_drop,
        sysctls=spec.sysctls,
        init=spec.init,
        ulimits=_ulimits(ulimits, spec.ulimits),
        groups=spec.groups,
        oom_score_adj=spec.oom_score_adj,
        privileged=spec.privileged,
        devices=tuple(_device(device) for device in spec.devices),
        no_new_privileges=spec.no_new_privileges,
        seccomp_profile=spec.seccomp_profile,
        apparmor_profile=spec.apparmor_profile,
        shm_size_bytes=spec.shm_size_bytes,
        host_pid=spec.pid_mode == HOST,
        host_ipc=spec.ipc_mode == HOST,
        stdin_open=spec.stdin_open,
        log_driver=settings.driver,
        log_max_size=settings.max_size,
        log_max_files=settings.max_files,
    )


def _ulimits(base: tuple[runtime.Ulimit, ...], wanted: tuple[Ulimit, ...]) -> tuple[runtime.Ulimit, ...]:
    """What every container gets, unless the service says otherwise."""
    limits = {limit.name: limit for limit in base}
    limits |= {limit.name: runtime.Ulimit(name=limit.name, soft=limit.soft, hard=limit.hard) for limit in wanted}
    return tuple(limits.values())


def _dns_options(wanted: tuple[str, ...], *, is_ours: bool) -> tuple[str, ...]:
    """Our server wants every name asked for as it is; whoever sets ndots knows better."""
    if not is_ours or any(option.startswith("ndots:") for option in wanted):
        return wanted
    return (*wanted, "ndots:0")


def _device(device: DeviceMapping) -> runtime.Device:
    return runtime.Device(
        host_path=device.host_path,
        container_path=device.container_path,
        permissions=device.permissions or "rwm",
    )


def _labels(task: Task) -> dict[str, str]:
    return {
        LABEL_TASK_ID: task.id,
        LABEL_TASK_NAME: container_name(task),
        LABEL_SERVICE_ID: task.service_id,
        LABEL_SERVICE_NAME: task.service_name,
        LABEL_NODE_ID: task.node_id,
    }


def _mount(mount: Mount) -> runtime.Mount:
    if not mount.target.startswith("/"):
        raise InvalidArgument(f"invalid mount target '{mount.target}': it must be an absolute path")
    size = (f"size={mount.tmpfs_size_bytes}",) if mount.tmpfs_size_bytes else ()
    mode = (f"mode={mount.tmpfs_mode:o}",) if mount.tmpfs_mode else ()
    return runtime.Mount(
        type=_MOUNT_TYPES[mount.type],
        source=mount.source,
        target=mount.target,
        read_only=mount.read_only,
        options=(*size, *mode),
        propagation=mount.bind_propagation,
        non_recursive=mount.bind_non_recursive,
        no_copy=mount.volume_no_copy,
        volume_driver=mount.volume_driver,
        volume_options=mount.volume_options,
        volume_labels=mount.volume_labels,
        subpath=mount.volume_subpath,
    )


def has_host_ports(task: Task) -> bool:
    return any(port.publish_mode is PublishMode.HOST for port in task.ports)


def _has_way_out(task: Task, attachments: tuple[overlay.Attachment, ...], internal: set[str]) -> bool:
    if not attachments:
        return not any(network.target == NO_NETWORK for network in task.spec.networks)
    return any(attachment.network_id not in internal for attachment in attachments)


def sandbox(task: Task, internal_networks: Iterable[str], *, is_published: bool = True) -> overlay.Sandbox:
    """The task's network namespace. It has a way out unless every one of its networks is internal.

    A task that is prepared has not published its host ports yet: its predecessor may still serve at them.
    """
    internal = set(internal_networks)
    attachments = tuple(
        overlay.Attachment(network_id=n.network_id, endpoint_id=task.id, addresses=n.addresses, aliases=n.aliases)
        for n in task.networks
    )
    host_ports = tuple(
        overlay.HostPort(
            protocol=PROTOCOLS[port.protocol],
            published=port.published_port,
            target=port.target_port,
            host_ip=port.host_ip,
            proxy_protocol=port.proxy_protocol,
        )
        for port in task.ports
        if port.publish_mode is PublishMode.HOST and is_published
    )
    return overlay.Sandbox(
        sandbox_id=task.id,
        hostname=task.spec.container.hostname,
        attachments=attachments,
        host_ports=host_ports,
        egress=_has_way_out(task, attachments, internal),
        dns=task.spec.container.dns,
        service_id=task.service_id,
    )

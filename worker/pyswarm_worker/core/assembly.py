"""What a task means to the runtime and to the overlay: Task -> ContainerConfig and Sandbox. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import DEFAULT_STOP_GRACE_PERIOD_S, Mount, MountType, Protocol, PublishMode, Task
from pyswarm_overlay import types as overlay
from pyswarm_runtime import types as runtime

LABEL_TASK_ID = "com.pyswarm.task.id"
LABEL_TASK_NAME = "com.pyswarm.task.name"
LABEL_SERVICE_ID = "com.pyswarm.service.id"
LABEL_SERVICE_NAME = "com.pyswarm.service.name"
LABEL_NODE_ID = "com.pyswarm.node.id"
HOST_NETWORK = "host"

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


def container_config(task: Task, netns_path: str, ulimits: tuple[runtime.Ulimit, ...] = ()) -> runtime.ContainerConfig:
    """An empty `netns_path` is the host's own network."""
    spec, resources = task.spec.container, task.spec.resources
    # As docker: an overridden entrypoint takes the image's command out of play.
    command = spec.args if spec.args or spec.command else None
    return runtime.ContainerConfig(
        image=spec.image,
        name=container_name(task),
        entrypoint=spec.command or None,
        command=command,
        env=spec.env,
        working_dir=spec.dir,
        user=spec.user,
        hostname=spec.hostname,
        labels={**spec.labels, **_labels(task)},
        mounts=tuple(_mount(mount) for mount in spec.mounts),
        netns_path=netns_path or None,
        host_network=not netns_path,
        dns=(_DNS_ADDRESS,) if task.networks else spec.dns,
        dns_options=("ndots:0",) if task.networks else (),
        extra_hosts=spec.hosts,
        nano_cpus=resources.limits.nano_cpus,
        memory_bytes=resources.limits.memory_bytes,
        pids_limit=resources.limits.pids,
        stop_signal=spec.stop_signal or None,
        stop_grace_s=stop_grace_s(task),
        tty=spec.tty,
        read_only=spec.read_only,
        cap_add=spec.cap_add,
        cap_drop=spec.cap_drop,
        sysctls=spec.sysctls,
        init=spec.init,
        ulimits=ulimits,
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
    options = (f"size={mount.tmpfs_size_bytes}",) if mount.tmpfs_size_bytes else ()
    return runtime.Mount(
        type=_MOUNT_TYPES[mount.type],
        source=mount.source,
        target=mount.target,
        read_only=mount.read_only,
        options=options,
    )


def sandbox(task: Task, internal_networks: Iterable[str]) -> overlay.Sandbox:
    """The task's network namespace. It has a way out unless every one of its networks is internal."""
    internal = set(internal_networks)
    attachments = tuple(
        overlay.Attachment(network_id=n.network_id, endpoint_id=task.id, addresses=n.addresses, aliases=n.aliases)
        for n in task.networks
    )
    host_ports = tuple(
        overlay.HostPort(protocol=PROTOCOLS[port.protocol], published=port.published_port, target=port.target_port)
        for port in task.ports
        if port.publish_mode is PublishMode.HOST
    )
    return overlay.Sandbox(
        sandbox_id=task.id,
        hostname=task.spec.container.hostname,
        attachments=attachments,
        host_ports=host_ports,
        egress=not attachments or any(a.network_id not in internal for a in attachments),
    )

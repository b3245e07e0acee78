"""What a service may be: mode, size, task, updates and published ports."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import msgspec

from pyswarm_common.model import (
    EndpointMode,
    EndpointSpec,
    PublishMode,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    SessionAffinity,
    TaskSpec,
    UpdateConfig,
)
from pyswarm_manager.api.validate.container import check_container
from pyswarm_manager.api.validate.dependencies import check_dependencies
from pyswarm_manager.api.validate.fields import (
    Violation,
    check_count,
    check_duration,
    check_labels,
    check_name,
    shown,
    under,
)
from pyswarm_manager.api.validate.modes import check_mode
from pyswarm_manager.api.validate.network import PREDEFINED
from pyswarm_manager.api.validate.placement import check_generic, check_placement, check_priority
from pyswarm_manager.api.validate.policy import check_policy
from pyswarm_manager.api.validate.ports import check_port_options
from pyswarm_manager.api.validate.static_addresses import check_static_addresses
from pyswarm_manager.store.tables import HOST_NETWORK, NO_NETWORK, NODE_NETWORKS

MAX_SPEC_BYTES = 512 * 1024  # twice this (spec and previous spec) must fit into one change set
MAX_NETWORKS = 64
MAX_PORTS = 1_000
_MIN_MEMORY_BYTES = 4 << 20
_MIN_NANO_CPUS = 1_000_000
_ALIAS = re.compile(r"[a-zA-Z0-9_](?:[a-zA-Z0-9_.-]{0,251}[a-zA-Z0-9_])?")


def check_service_spec(spec: ServiceSpec) -> Iterator[Violation]:
    """Everything that is wrong with the spec by itself."""
    size = len(msgspec.msgpack.encode(spec))
    if size > MAX_SPEC_BYTES:
        yield "", f"the service spec is too large: {size} bytes of at most {MAX_SPEC_BYTES}"
        return
    yield from check_name(spec.name)
    yield from check_labels(spec.labels)
    yield from check_mode(spec)
    yield from check_priority(spec.priority)
    yield from under("task", _check_task(spec.task, spec.mode))
    for path, config in (("update", spec.update), ("rollback", spec.rollback)):
        if config is not None:
            yield from under(path, _check_update(config, path))
    yield from under("endpoint", _check_endpoint(spec.endpoint))
    yield from _check_host_network(spec)
    yield from check_static_addresses(spec)
    yield from under("endpoint", check_policy(spec))
    yield from check_dependencies(spec)


def _check_task(task: TaskSpec, mode: ServiceMode) -> Iterator[Violation]:
    yield from under("container", check_container(task.container))
    yield from under("resources", _check_requirements(task.resources))
    yield from under("restart", _check_restart(task.restart))
    yield from under("placement", check_placement(task.placement, mode))
    yield from _check_attachments(task)


def _check_requirements(requirements: ResourceRequirements) -> Iterator[Violation]:
    limits, reservations = requirements.limits, requirements.reservations
    yield from under("limits", _check_resources(limits))
    yield from under("reservations", _check_resources(reservations))
    for path, limit, reservation, name in (
        ("nano_cpus", limits.nano_cpus, reservations.nano_cpus, "cpu"),
        ("memory_bytes", limits.memory_bytes, reservations.memory_bytes, "memory"),
        ("pids", limits.pids, reservations.pids, "pids"),
    ):
        if 0 < limit < reservation:
            yield f"reservations.{path}", f"the {name} reservation must not be above the {name} limit"
    yield from _check_swap(requirements)
    yield from under("reservations", check_generic(reservations.generic))
    if reservations.pids < 0:
        yield "reservations.pids", "the reservation of processes cannot be negative"
    if requirements.limits.pids < 0:
        yield "limits.pids", "the limit of processes cannot be negative (0 is no limit)"


def _check_swap(requirements: ResourceRequirements) -> Iterator[Violation]:
    swap, memory, swappiness = (
        requirements.memory_swap_bytes,
        requirements.limits.memory_bytes,
        requirements.memory_swappiness,
    )
    if swap is not None and swap < -1:
        yield "memory_swap_bytes", f"invalid memory swap value {swap}: use -1 for no limit"
    elif swap is not None and swap > 0 and memory == 0:
        yield "memory_swap_bytes", "You should always set the Memory limit when using Memoryswap limit, see usage"
    elif swap is not None and 0 < swap < memory:
        yield "memory_swap_bytes", "Minimum memoryswap limit should be larger than memory limit, see usage"
    if swappiness is not None and not 0 <= swappiness <= 100:
        yield "memory_swappiness", f"Invalid value: {swappiness}, valid memory swappiness range is 0-100"


def _check_resources(resources: Resources) -> Iterator[Violation]:
    memory, cpus = resources.memory_bytes, resources.nano_cpus
    if memory != 0 and memory < _MIN_MEMORY_BYTES:
        yield "memory_bytes", f"invalid memory value {memory}: Must be at least 4MiB"
    if cpus != 0 and cpus < _MIN_NANO_CPUS:
        yield "nano_cpus", f"invalid cpu value {cpus / 1e9:g}: Must be at least {_MIN_NANO_CPUS / 1e9:g}"


def _check_restart(policy: RestartPolicy) -> Iterator[Violation]:
    yield from check_duration(policy.delay_s, "delay_s", "TaskSpec: restart-delay")
    yield from check_duration(policy.window_s, "window_s", "TaskSpec: restart-window")
    yield from check_duration(policy.max_delay_s, "max_delay_s", "TaskSpec: restart-max-delay")


def _check_attachments(task: TaskSpec) -> Iterator[Violation]:
    yield from check_count(task.networks, MAX_NETWORKS, "networks", "networks")
    for index, attachment in enumerate(task.networks):
        path = f"networks[{index}]"
        if not attachment.target:
            yield f"{path}.target", "a network needs a name or an id"
        elif attachment.target in PREDEFINED - NODE_NETWORKS:
            yield (
                f"{path}.target",
                f"network {attachment.target} cannot be used with services: use a network of the swarm, or host",
            )
        for option in attachment.driver_options:
            yield f"{path}.driver_options", f"network driver option {shown(option)} is not supported"
        yield from check_count(attachment.aliases, MAX_NETWORKS, f"{path}.aliases", "aliases")
        for alias in attachment.aliases:
            if _ALIAS.fullmatch(alias) is None:
                yield f"{path}.aliases", f"invalid network alias {shown(alias)}"


def _check_host_network(spec: ServiceSpec) -> Iterator[Violation]:
    """Tasks on the network of their host have no address of their own, so nothing else can lead to them."""
    targets = [attachment.target for attachment in spec.task.networks]
    if NO_NETWORK in targets and (len(targets) > 1 or spec.endpoint.ports):
        yield "task.networks", "conflicting options: the network none goes with no other, and with no published port"
    if HOST_NETWORK not in targets:
        return
    if len(targets) > 1:
        yield (
            "task.networks",
            "container cannot be disconnected from host network or connected to host network: it goes with no other",
        )
    if spec.endpoint.ports:
        yield (
            "endpoint.ports",
            "conflicting options: port publishing and the host network, where tasks listen on their host's own ports",
        )


def _check_update(config: UpdateConfig, name: str) -> Iterator[Violation]:
    yield from check_duration(config.delay_s, "delay_s", f"TaskSpec: {name}-delay")
    yield from check_duration(config.monitor_s, "monitor_s", f"TaskSpec: {name}-monitor")
    if math.isnan(config.max_failure_ratio) or not 0 <= config.max_failure_ratio <= 1:
        yield "max_failure_ratio", f"TaskSpec: {name}-maxfailureratio cannot be less than 0 or bigger than 1"


def _check_endpoint(endpoint: EndpointSpec) -> Iterator[Violation]:
    yield from check_count(endpoint.ports, MAX_PORTS, "ports", "published ports")
    if endpoint.mode is EndpointMode.DNSRR and endpoint.session_affinity is not SessionAffinity.NONE:
        yield "session_affinity", "EndpointSpec: session affinity can't be used with dnsrr mode: there clients choose"
    published = set()
    for index, port in enumerate(endpoint.ports):
        path = f"ports[{index}]"
        if not 1 <= port.target_port <= 65535:
            yield f"{path}.target_port", f"invalid target port {port.target_port}: it must be between 1 and 65535"
        if not 0 <= port.published_port <= 65535:
            yield (
                f"{path}.published_port",
                (f"invalid published port {port.published_port}: it must be between 1 and 65535, or 0 for any"),
            )
        if endpoint.mode is EndpointMode.DNSRR and port.publish_mode is PublishMode.INGRESS:
            yield (
                f"{path}.publish_mode",
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            )
        yield from check_port_options(port, path)
        key = (port.published_port, port.protocol)
        if port.published_port and key in published:
            yield f"{path}.published_port", "EndpointSpec: duplicate published ports provided"
        published.add(key)

"""From flags to a ServiceSpec, and from a ServiceSpec and flags to the next one.

Pure: environment and files come as arguments, networks that must be resolved come resolved. A flag that was not given
(None, or an empty list) changes nothing. Each module of `parts` has one part of the specification, with up to three
functions: `create_*` (what create gives as whole lists), `apply_to_*` (the flags that create and update share) and
`change_*` (what update adds and removes). Who acts next: the commands send the spec to the manager, which validates it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from pyswarm_cli.service.parts.container import apply_to_container, change_container, create_container
from pyswarm_cli.service.parts.dependencies import change_dependencies, create_dependencies
from pyswarm_cli.service.parts.modes import apply_to_mode, create_mode, restart_of_jobs
from pyswarm_cli.service.parts.networking import apply_to_endpoint, change_endpoint, change_networks, create_endpoint
from pyswarm_cli.service.parts.pieces import Options, pairs_changed, with_given
from pyswarm_cli.service.parts.placement import apply_to_placement, change_placement, create_placement
from pyswarm_cli.service.parts.policy import apply_policy, change_policy
from pyswarm_cli.service.parts.resources import apply_to_resources, change_resources, create_resources
from pyswarm_cli.service.parts.rollout import apply_to_restart, rollout
from pyswarm_common.model import ServiceSpec, TaskSpec


def create(image: str, args: Sequence[str], options: Options, own_environment: Mapping[str, str]) -> ServiceSpec:
    """The spec of a new service."""
    spec = create_mode(options)
    task = TaskSpec(
        container=create_container(image, args, options, own_environment),
        placement=create_placement(options),
        resources=create_resources(options),
        networks=tuple(options["network"]),
        restart=restart_of_jobs(spec.mode),
    )
    spec = replace(
        spec,
        name=options["name"] or "",
        labels=dict(options["label"]),
        depends_on=create_dependencies(options),
        task=task,
        endpoint=create_endpoint(options),
    )
    return apply(spec, options)


def apply(spec: ServiceSpec, options: Options) -> ServiceSpec:
    """`spec` with the single-valued flags of create and update."""
    spec = apply_to_mode(spec, options)
    spec = with_given(spec, priority=options["priority"], rebalance=options["rebalance"])
    return replace(
        spec,
        task=_apply_to_task(spec.task, options),
        update=rollout(spec.update, options, "update"),
        rollback=rollout(spec.rollback, options, "rollback"),
        endpoint=apply_policy(apply_to_endpoint(spec.endpoint, options), options),
    )


def _apply_to_task(task: TaskSpec, options: Options) -> TaskSpec:
    return replace(
        task,
        container=apply_to_container(task.container, options),
        resources=apply_to_resources(task.resources, options),
        restart=apply_to_restart(task.restart, options),
        placement=apply_to_placement(task.placement, options),
    )


def change(
    spec: ServiceSpec, options: Options, own_environment: Mapping[str, str], network_ids: Mapping[str, str]
) -> ServiceSpec:
    """The spec that `service update` with these flags makes of `spec`. `network_ids`: of names in --network-rm."""
    spec = apply(spec, options)
    return replace(
        spec,
        labels=pairs_changed(spec.labels, options["label_add"], options["label_rm"]),
        depends_on=change_dependencies(spec.depends_on, options["depends_on_add"], options["depends_on_rm"]),
        endpoint=change_policy(change_endpoint(spec.endpoint, options), options),
        task=_change_task(spec.task, options, own_environment, network_ids),
    )


def _change_task(task: TaskSpec, options: Options, own: Mapping[str, str], network_ids: Mapping[str, str]) -> TaskSpec:
    return replace(
        task,
        container=change_container(task.container, options, own),
        placement=change_placement(task.placement, options),
        resources=change_resources(task.resources, options),
        networks=change_networks(task.networks, options, network_ids),
        force_update=task.force_update + bool(options["force"]),
    )

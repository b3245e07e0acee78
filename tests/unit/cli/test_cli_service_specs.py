"""What the flags of `service create` and `service update` make of a spec."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from pyswarm_cli.service import build
from pyswarm_cli.service.flags import CREATE_LISTS, SCALARS, UPDATE_LISTS, declared
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import (
    ContainerSpec,
    EndpointMode,
    FailureAction,
    HealthCheck,
    NetworkAttachmentSpec,
    PlacementPreference,
    PortConfig,
    Protocol,
    RestartCondition,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
    UpdateOrder,
)


def options_of(flags: str, lists: list[Any], extra: list[Any]) -> dict[str, Any]:
    """The options as click reads them."""
    seen: dict[str, Any] = {}

    @click.command()
    @declared([*SCALARS, *lists, *extra])
    def command(**options: Any) -> None:
        seen.update(options)

    result = CliRunner().invoke(command, flags.split())
    assert result.exit_code == 0, result.output
    return seen


def created(flags: str = "", args: tuple[str, ...] = ()) -> ServiceSpec:
    extra = [click.option("--name"), click.option("--mode", default="replicated")]
    return build.create("img:1", args, options_of(flags, CREATE_LISTS, extra), {"HOME": "/h"})


def updated(spec: ServiceSpec, flags: str, ids: dict[str, str] | None = None) -> ServiceSpec:
    extra = [click.option("--image"), click.option("--args"), click.option("--force", is_flag=True)]
    return build.change(spec, options_of(flags, UPDATE_LISTS, extra), {}, ids or {})


def test_a_service_without_flags_has_one_replica_and_nothing_else() -> None:
    assert created() == ServiceSpec(replicas=1, task=TaskSpec(container=ContainerSpec(image="img:1")))


def test_what_follows_the_image_becomes_its_arguments_untouched() -> None:
    assert created(args=("sh", "-c", "echo $X --replicas 5")).task.container.args == (
        "sh",
        "-c",
        "echo $X --replicas 5",
    )


def test_the_flags_of_containers() -> None:
    spec = created(
        "--name web --replicas 3 -e A=1 -e HOME --hostname h --user 1:2 --workdir /w --stop-signal TERM "
        "--stop-grace-period 20s --init --tty --read-only --cap-add net_admin --cap-drop ALL --sysctl a.b=1 "
        "--dns 1.1.1.1 --host db:10.0.0.9 --container-label x=y --entrypoint /bin/run "
        "--mount type=bind,source=/a,target=/b"
    )
    container = spec.task.container
    assert (spec.name, spec.replicas) == ("web", 3)
    assert container.env == ("A=1", "HOME=/h")
    assert container.command == ("/bin/run",)
    assert (container.hostname, container.user, container.dir) == ("h", "1:2", "/w")
    assert (container.stop_signal, container.stop_grace_period_s) == ("TERM", 20.0)
    assert (container.init, container.tty, container.read_only) == (True, True, True)
    assert (container.cap_add, container.cap_drop) == (("CAP_NET_ADMIN",), ("ALL",))
    assert (container.sysctls, container.dns, container.hosts) == ({"a.b": "1"}, ("1.1.1.1",), ("db:10.0.0.9",))
    assert container.labels == {"x": "y"}
    assert container.mounts[0].target == "/b"


def test_the_flags_of_placement_resources_restart_and_rollout() -> None:
    spec = created(
        "--constraint node.role==worker --placement-pref spread=node.labels.zone --replicas-max-per-node 2 "
        "--limit-cpu 0.5 --limit-memory 64m --limit-pids 50 --reserve-cpu 0.1 --reserve-memory 32m "
        "--restart-condition on-failure --restart-delay 1s --restart-max-attempts 3 --restart-window 1m "
        "--update-delay 2s --update-failure-action rollback --update-order start-first --rollback-parallelism 0 "
        "--endpoint-mode dnsrr -p 8080:80 -p 53:53/udp --network web -l a=b"
    )
    task = spec.task
    assert task.placement.constraints == ("node.role==worker",)
    assert task.placement.preferences == (PlacementPreference(spread_descriptor="node.labels.zone"),)
    assert task.placement.max_replicas_per_node == 2
    assert (task.resources.limits.nano_cpus, task.resources.limits.memory_bytes) == (500_000_000, 64 << 20)
    assert (task.resources.reservations.nano_cpus, task.resources.limits.pids) == (100_000_000, 50)
    assert (task.restart.condition, task.restart.delay_s) == (RestartCondition.ON_FAILURE, 1.0)
    assert (task.restart.max_attempts, task.restart.window_s) == (3, 60.0)
    assert spec.update == UpdateConfig(
        parallelism=1, delay_s=2.0, failure_action=FailureAction.ROLLBACK, order=UpdateOrder.START_FIRST
    )
    assert spec.rollback == UpdateConfig(parallelism=0)
    assert spec.endpoint.mode is EndpointMode.DNSRR
    assert [port.protocol for port in spec.endpoint.ports] == [Protocol.TCP, Protocol.UDP]
    assert task.networks == (NetworkAttachmentSpec(target="web"),)
    assert spec.labels == {"a": "b"}


def test_a_global_service_has_no_replicas() -> None:
    assert created("--mode global").mode is ServiceMode.GLOBAL
    assert created("--mode global").replicas is None
    with pytest.raises(InvalidArgument, match="replicated or replicated-job mode"):
        created("--mode global --replicas 2")


def test_health_checks() -> None:
    check = created("--health-cmd true --health-interval 5s --health-retries 3").task.container.healthcheck
    assert check == HealthCheck(test=("CMD-SHELL", "true"), interval_s=5.0, retries=3)
    assert created("--no-healthcheck").task.container.healthcheck == HealthCheck(test=("NONE",))
    with pytest.raises(InvalidArgument, match="conflicts"):
        created("--no-healthcheck --health-cmd true")


BASE = created(
    "--name web -e A=1 -e B=2 -l a=b --constraint node.role==worker -p 8080:80 -p 53:53/udp --network id1 "
    "--mount type=bind,source=/a,target=/b --cap-drop ALL --limit-memory 64m --update-parallelism 2"
)


def test_an_update_without_flags_changes_nothing() -> None:
    assert updated(BASE, "") == BASE


@pytest.mark.parametrize("flags", ["--label-rm nope", "--env-rm NOPE", "--constraint-add node.role==worker"])
def test_an_update_to_what_is_so_already_changes_nothing(flags: str) -> None:
    assert updated(BASE, flags) == BASE


def test_force_alone_replaces_the_tasks() -> None:
    assert updated(BASE, "--force").task.force_update == 1


def test_an_update_changes_what_its_flags_name_and_keeps_the_rest() -> None:
    spec = updated(
        BASE,
        "--image img:2 --env-add A=9 --env-rm B --label-add c=d --label-rm a --constraint-rm node.role==worker "
        "--publish-add 443:443 --publish-rm 53/udp --mount-rm /b --limit-cpu 1 --update-delay 1s",
    )
    assert spec.task.container.image == "img:2"
    assert spec.task.container.env == ("A=9",)
    assert spec.task.container.mounts == ()
    assert spec.labels == {"c": "d"}
    assert spec.task.placement.constraints == ()
    assert spec.endpoint.ports == (
        PortConfig(target_port=80, published_port=8080),
        PortConfig(target_port=443, published_port=443),
    )
    assert (spec.task.resources.limits.memory_bytes, spec.task.resources.limits.nano_cpus) == (64 << 20, 1_000_000_000)
    assert spec.update == UpdateConfig(parallelism=2, delay_s=1.0)
    assert spec.task.networks == BASE.task.networks


def test_networks_are_removed_and_added_by_name_though_specs_hold_ids() -> None:
    ids = {"front": "id1", "back": "id2"}
    assert updated(BASE, "--network-rm front", ids).task.networks == ()
    assert updated(BASE, "--network-add front", ids).task.networks == BASE.task.networks
    assert updated(BASE, "--network-add back", ids).task.networks[-1].target == "back"


def test_adding_a_dropped_capability_ends_the_drop() -> None:
    container = updated(BASE, "--cap-add ALL").task.container
    assert (container.cap_add, container.cap_drop) == (("ALL",), ())


def test_replicas_of_a_global_service_cannot_be_set() -> None:
    with pytest.raises(InvalidArgument, match="replicated or replicated-job mode"):
        updated(created("--mode global"), "--replicas 2")

"""The agent's smaller decisions: what a task means to its host, when to probe, what an assignment changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm.v1 import types_pb2
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import (
    ContainerSpec,
    DeviceMapping,
    HealthCheck,
    LogDriver,
    Mount,
    MountType,
    NetworkAttachment,
    PortConfig,
    Protocol,
    PublishMode,
    ResourceRequirements,
    Resources,
    Task,
    TaskSpec,
    Ulimit,
)
from pyswarm_common.probe_targets import HttpTarget, TcpTarget
from pyswarm_worker.core.assembly import container_config, open_files, sandbox
from pyswarm_worker.core.assignments import change_of
from pyswarm_worker.core.health import Command, Health, after_probe, is_unhealthy, next_delay_s, probe_plan
from pyswarm_worker.core.tables import KnownTable, ingress_ports

TASK_ID = "t" * 25


def task(spec: ContainerSpec, **changes: object) -> Task:
    return Task(id=TASK_ID, service_name="web", slot=2, spec=TaskSpec(container=spec), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "args", "entrypoint", "cmd"),
    [
        ((), (), None, None),  # as the image says
        ((), ("x",), None, ("x",)),
        (("/run",), ("x",), ("/run",), ("x",)),
        (("/run",), (), ("/run",), ()),  # an overridden entrypoint takes the image's command out of play
    ],
)
def test_command_and_arguments(
    command: tuple[str, ...], args: tuple[str, ...], entrypoint: tuple[str, ...] | None, cmd: tuple[str, ...] | None
) -> None:
    config = container_config(task(ContainerSpec(image="i", command=command, args=args)), "/ns")
    assert (config.entrypoint, config.command) == (entrypoint, cmd)


@pytest.mark.parametrize(("own", "soft", "hard"), [(1048576, 1024, 524288), (4096, 1024, 4096), (512, 512, 512)])
def test_a_containers_limit_of_open_files(own: int, soft: int, hard: int) -> None:
    limit = open_files(own)
    assert (limit.name, limit.soft, limit.hard) == ("nofile", soft, hard)
    assert container_config(task(ContainerSpec(image="i")), "/ns", (limit,)).ulimits == (limit,)


def test_a_container_of_a_task() -> None:
    spec = ContainerSpec(
        image="app",
        env=("A=b",),
        labels={"mine": "yes"},
        mounts=(Mount(type=MountType.TMPFS, target="/t", tmpfs_size_bytes=4096),),
        stop_grace_period_s=0.0,
        dns=("9.9.9.9",),
    )
    limits = ResourceRequirements(limits=Resources(nano_cpus=5, memory_bytes=6, pids=7))
    whole = Task(id=TASK_ID, service_name="web", slot=2, spec=TaskSpec(container=spec, resources=limits))
    config = container_config(whole, "/ns")
    assert config.name == f"web.2.{TASK_ID}"
    assert config.labels["com.pyswarm.task.id"] == TASK_ID
    assert config.labels["mine"] == "yes"
    assert (config.nano_cpus, config.memory_bytes, config.pids_limit) == (5, 6, 7)
    assert config.mounts[0].options == ("size=4096",)
    assert config.stop_grace_s == 0.0
    assert (config.netns_path, config.host_network, config.dns) == ("/ns", False, ("9.9.9.9",))
    networked = container_config(
        task(spec, networks=(NetworkAttachment(network_id="n", addresses=("10.0.0.5/24",)),)), "/ns"
    )
    assert networked.dns == ("127.0.0.11",)
    assert container_config(whole, "").host_network


def test_a_relative_mount_target_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="must be an absolute path"):
        container_config(task(ContainerSpec(mounts=(Mount(target="data"),))), "/ns")


def test_the_way_out_and_host_ports() -> None:
    attachments = (NetworkAttachment(network_id="in", addresses=("10.0.1.5/24",), aliases=("db",)),)
    ports = (
        PortConfig(target_port=53, published_port=5353, protocol=Protocol.UDP, publish_mode=PublishMode.HOST),
        PortConfig(target_port=80, published_port=8080),
    )
    made = sandbox(task(ContainerSpec(), networks=attachments, ports=ports), internal_networks=["in"])
    assert not made.egress
    assert made.attachments[0].aliases == ("db",)
    assert [(port.protocol, port.published, port.target) for port in made.host_ports] == [("udp", 5353, 53)]
    assert sandbox(task(ContainerSpec(), networks=attachments), internal_networks=[]).egress
    assert sandbox(task(ContainerSpec()), internal_networks=["in"]).egress


CHECK = HealthCheck(test=("CMD-SHELL", "ok"), interval_s=10, timeout_s=1, retries=2, start_period_s=20)


def test_which_check_holds() -> None:
    assert probe_plan(None, None) is None
    assert probe_plan(HealthCheck(test=("NONE",)), CHECK) is None
    from_image = probe_plan(None, CHECK)
    assert from_image is not None
    assert from_image.what == Command(("/bin/sh", "-c", "ok"))
    defaults = probe_plan(HealthCheck(test=("CMD", "a", "b")), None)
    assert defaults is not None
    assert (defaults.what, defaults.interval_s, defaults.retries) == (Command(("a", "b")), 30.0, 3)
    web = probe_plan(HealthCheck(test=("HTTP", "http://:8080/up")), CHECK)
    assert web is not None
    assert web.what == HttpTarget("", 8080, "/up")
    port = probe_plan(HealthCheck(test=("TCP", ":53")), None)
    assert port is not None
    assert port.what == TcpTarget("", 53)


def test_early_failures_count_once_per_interval_after_the_start_period() -> None:
    plan = probe_plan(CHECK, None)
    assert plan is not None
    health, now, counted = Health(started_at=0.0), 0.0, []
    while not is_unhealthy(plan, health):
        now += next_delay_s(plan, health, now)
        before = health.failures
        health = after_probe(plan, health, succeeded=False, now=now)
        if health.failures > before:
            counted.append(now)
    assert counted[0] >= 20
    assert counted[1] - counted[0] >= 10


def test_the_start_interval_holds_until_the_first_success_or_the_end_of_the_start_period() -> None:
    plan = probe_plan(replace(CHECK, start_interval_s=3.0), None)
    assert plan is not None
    health = Health(started_at=0.0)
    assert next_delay_s(plan, health, 0.0) == next_delay_s(plan, health, 19.0) == 3.0
    assert next_delay_s(plan, health, 20.0) != 3.0
    assert next_delay_s(plan, after_probe(plan, health, succeeded=True, now=3.0), 4.0) == 10


def test_once_healthy_every_failure_counts_and_a_success_forgives() -> None:
    plan = probe_plan(CHECK, None)
    assert plan is not None
    health = after_probe(plan, Health(started_at=0.0), succeeded=True, now=1.0)
    assert next_delay_s(plan, health, 1.0) == 10
    health = after_probe(plan, health, succeeded=False, now=2.0)
    health = after_probe(plan, health, succeeded=True, now=3.0)
    health = after_probe(plan, health, succeeded=False, now=4.0)
    assert not is_unhealthy(plan, health)
    assert is_unhealthy(plan, after_probe(plan, health, succeeded=False, now=5.0))


def test_a_complete_assignment_removes_what_it_does_not_name() -> None:
    message = pb.Assignments(
        type=pb.Assignments.TYPE_COMPLETE,
        update_tasks=[types_pb2.Task(id="a")],
        networks=[pb.NetworkTable(network_id="n")],
        ingress=pb.IngressTable(),
    )
    change = change_of(message, ["a", "b"], ["n", "m"])
    assert (change.remove_task_ids, change.remove_network_ids) == (("b",), ("m",))
    assert change.ingress is not None


def test_an_increment_removes_what_it_names() -> None:
    message = pb.Assignments(type=pb.Assignments.TYPE_INCREMENTAL, remove_task_ids=["b"])
    change = change_of(message, ["a", "b"], ["n"])
    assert (change.remove_task_ids, change.remove_network_ids, change.ingress) == (("b",), (), None)


def endpoint(key: str, *, ready: bool = True) -> pb.EndpointRecord:
    return pb.EndpointRecord(endpoint_id=key, addresses=[f"10.0.0.{len(key)}"], service_id="s", ready=ready)


def test_an_increment_of_another_version_is_refused() -> None:
    known = KnownTable.of(pb.NetworkTable(version=3, endpoints=[endpoint("a")]))
    assert not known.apply(pb.NetworkTable(from_version=2, version=4))
    assert known.apply(pb.NetworkTable(from_version=3, version=4, remove_endpoint_ids=["a"]))
    assert (known.version, known.endpoints) == (4, {})


@given(st.permutations(["a", "bb", "ccc", "dddd"]))
def test_backends_come_in_one_order(keys: list[str]) -> None:
    """So that the same table never looks like a change."""
    endpoints = {key: endpoint(key, ready=key != "bb") for key in keys}
    (port,) = ingress_ports([pb.IngressPort(service_id="s", published_port=80, target_port=80)], endpoints)
    assert [backend.endpoint_id for backend in port.backends] == ["a", "ccc", "dddd"]


def test_every_option_of_a_container_reaches_the_runtime() -> None:
    spec = ContainerSpec(
        image="img:1",
        groups=("a",),
        dns_options=("timeout:1",),
        dns_search=("s",),
        ulimits=(Ulimit("nofile", 1, 2), Ulimit("core", 0, 0)),
        oom_score_adj=5,
        log_driver=LogDriver("local", {"max-file": "9"}),
        privileged=True,
        devices=(DeviceMapping("/dev/a"),),
        no_new_privileges=True,
        seccomp_profile="unconfined",
        apparmor_profile="p",
        shm_size_bytes=7,
        pid_mode="host",
        ipc_mode="host",
        stdin_open=True,
        mounts=(
            Mount(MountType.TMPFS, target="/t", tmpfs_size_bytes=4096, tmpfs_mode=0o700),
            Mount(source="/a", target="/b", bind_propagation="rslave", bind_non_recursive=True),
            Mount(MountType.VOLUME, "v", "/v", volume_no_copy=True, volume_options={"o": "x"}, volume_subpath="s"),
        ),
    )
    made = container_config(task(spec), "", (open_files(5000),))
    assert {limit.name: (limit.soft, limit.hard) for limit in made.ulimits} == {"nofile": (1, 2), "core": (0, 0)}
    assert (made.groups, made.dns_search, made.dns_options) == (("a",), ("s",), ("timeout:1",))
    assert (made.log_driver, made.log_max_files) == ("local", 9)
    assert made.privileged
    assert made.no_new_privileges
    assert made.host_pid
    assert made.host_ipc
    assert made.stdin_open
    assert (made.oom_score_adj, made.shm_size_bytes) == (5, 7)
    assert (made.seccomp_profile, made.apparmor_profile) == ("unconfined", "p")
    assert [(device.host_path, device.permissions) for device in made.devices] == [("/dev/a", "rwm")]
    assert made.mounts[0].options == ("size=4096", "mode=700")
    assert (made.mounts[1].propagation, made.mounts[1].non_recursive) == ("rslave", True)
    assert (made.mounts[2].no_copy, made.mounts[2].volume_options, made.mounts[2].subpath) == (True, {"o": "x"}, "s")
    assert sandbox(task(replace(spec, dns=("192.0.2.1",))), ()).dns == ("192.0.2.1",)


def test_our_own_name_server_is_asked_for_names_as_they_are() -> None:
    networks = (NetworkAttachment(network_id="n", addresses=("10.0.0.2/24",)),)

    def options(*wanted: str) -> tuple[str, ...]:
        return container_config(task(ContainerSpec(dns_options=wanted), networks=networks), "/ns").dns_options

    assert options() == ("ndots:0",)
    assert options("rotate") == ("rotate", "ndots:0")
    assert options("ndots:2") == ("ndots:2",)

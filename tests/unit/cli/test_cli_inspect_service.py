"""A specification with everything that there is, as `inspect` shows it: nothing is left out, nothing secret is in."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pyswarm_cli.views import inspected
from pyswarm_cli.views.service_pretty import pretty
from pyswarm_common.model import (
    ContainerSpec,
    DependencyCondition,
    DeviceMapping,
    HealthCheck,
    LogDriver,
    Mount,
    MountType,
    NetworkAttachmentSpec,
    Placement,
    PlacementPreference,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    Service,
    ServiceDependency,
    ServiceSpec,
    Struct,
    TaskSpec,
    Ulimit,
    UpdateConfig,
)

CONTAINER = ContainerSpec(
    image="img:1",
    command=("cmd-x",),
    args=("arg-x",),
    env=("ENV_X=1",),
    hostname="host-x",
    dir="/dir-x",
    user="user-x",
    labels={"label-x": "1"},
    mounts=(
        Mount(source="/bind-x", target="/b", read_only=True, bind_propagation="rshared", bind_non_recursive=True),
        Mount(MountType.TMPFS, target="/tmpfs-x", tmpfs_size_bytes=4096, tmpfs_mode=0o700),
        Mount(
            MountType.VOLUME,
            "volume-x",
            "/v",
            volume_no_copy=True,
            volume_labels={"vlabel-x": "1"},
            volume_driver="driver-x",
            volume_options={"option-x": "1"},
            volume_subpath="sub-x",
        ),
    ),
    stop_signal="SIGUSR1",
    stop_grace_period_s=7.0,
    healthcheck=HealthCheck(("HTTP", "http://:81/x"), 2.0, 3.0, 4, 5.0, 0.5),
    dns=("192.0.2.3",),
    hosts=("hosts-x:192.0.2.4",),
    init=True,
    tty=True,
    read_only=True,
    cap_add=("CAP_SYS_TIME",),
    cap_drop=("CAP_CHOWN",),
    sysctls={"net.x": "1"},
    groups=("group-x",),
    dns_options=("ndots:7",),
    dns_search=("search-x",),
    ulimits=(Ulimit("nofile", 11, 12),),
    oom_score_adj=-17,
    log_driver=LogDriver("local", {"max-size": "3m"}),
    isolation="default",
    privileged=True,
    devices=(DeviceMapping("/dev/host-x", "/dev/inside-x", "rw"),),
    no_new_privileges=True,
    seccomp_profile="unconfined",
    apparmor_profile="apparmor-x",
    shm_size_bytes=128 * 1024 * 1024,
    pid_mode="host",
    ipc_mode="host",
    stdin_open=True,
    registry_auth=b"Geheimnis99",
)
SERVICE = Service(
    id="id-x",
    spec=ServiceSpec(
        name="web",
        labels={"slabel-x": "1"},
        replicas=3,
        task=TaskSpec(
            container=CONTAINER,
            resources=ResourceRequirements(
                limits=Resources(nano_cpus=1_500_000_000, memory_bytes=64 << 20, pids=9),
                reservations=Resources(memory_bytes=32 << 20),
                memory_swap_bytes=-1,
                memory_swappiness=0,
            ),
            restart=RestartPolicy(delay_s=1.0),
            placement=Placement(("node.role==worker",), (PlacementPreference("node.labels.zone"),), 2),
            networks=(NetworkAttachmentSpec("net-x", ("alias-x",), {"opt-x": "1"}),),
        ),
        update=UpdateConfig(parallelism=2, delay_s=0.5),
    ),
)


def values_of(document: Any) -> set[str]:
    """Every key and every value in it."""
    if isinstance(document, dict):
        return {str(key) for key in document}.union(*map(values_of, document.values()))
    return set().union(*map(values_of, document)) if isinstance(document, list) else {str(document)}


def test_every_field_of_the_container_is_shown() -> None:
    """Whatever is added to the model later must be added here, and shown."""
    bare = msgspec.structs.replace(SERVICE.spec.task, container=ContainerSpec(image="img:1"))
    for name in ContainerSpec.__struct_fields__:
        if name in ("image", "registry_auth", "secrets", "configs"):  # the last two have tests of their own
            continue
        value = getattr(CONTAINER, name)
        assert value != getattr(ContainerSpec(), name), f"give {name} a value in this test"
        with_it = msgspec.structs.replace(bare, container=ContainerSpec(image="img:1", **{name: value}))
        assert inspected.task_spec(with_it) != inspected.task_spec(bare), name
        assert is_valid_json(inspected.task_spec(with_it))


def is_valid_json(document: Any) -> bool:
    return bool(json.loads(json.dumps(document)) == document)


@pytest.mark.parametrize("kind", [Mount, HealthCheck, Ulimit, DeviceMapping, LogDriver])
def test_every_field_of_its_parts_is_shown(kind: type[Struct]) -> None:
    parts = [*CONTAINER.mounts, CONTAINER.healthcheck, *CONTAINER.ulimits, *CONTAINER.devices, CONTAINER.log_driver]
    mine = [part for part in parts if isinstance(part, kind)]
    shown = values_of(inspected.service(SERVICE))
    for name in kind.__struct_fields__:
        assert any(getattr(part, name) != getattr(kind(), name) for part in mine), f"give {name} a value in this test"
        for part in mine:
            value = getattr(part, name)
            if isinstance(value, str) and value:
                assert value in shown
            if isinstance(value, dict):
                assert set(value) <= shown


def test_credentials_are_never_shown() -> None:
    text = json.dumps(inspected.service(SERVICE)) + pretty(inspected.service(SERVICE))
    assert "Geheimnis99" not in text
    assert "R2VoZWltbmlz" not in text  # in base64


def test_dockers_names_where_docker_has_them() -> None:
    task = inspected.service(SERVICE)["Spec"]["TaskTemplate"]
    container = task["ContainerSpec"]
    assert container["Ulimits"] == [{"Name": "nofile", "Hard": 12, "Soft": 11}]
    assert container["DNSConfig"] == {"Nameservers": ["192.0.2.3"], "Search": ["search-x"], "Options": ["ndots:7"]}
    assert container["Privileges"] == {
        "Seccomp": {"Mode": "unconfined"},
        "AppArmor": {"Mode": "profile", "Profile": "apparmor-x"},
        "NoNewPrivileges": True,
    }
    assert container["Mounts"][1]["TmpfsOptions"] == {"SizeBytes": 4096, "Mode": 0o700}
    assert container["Mounts"][2]["VolumeOptions"]["DriverConfig"] == {"Name": "driver-x", "Options": {"option-x": "1"}}
    assert container["Healthcheck"]["StartInterval"] == 500_000_000
    assert task["LogDriver"] == {"Name": "local", "Options": {"max-size": "3m"}}
    assert task["Resources"]["SwapBytes"] == -1
    assert task["Resources"]["MemorySwappiness"] == 0


def test_pretty() -> None:
    lines = pretty(inspected.service(SERVICE)).splitlines()
    for line in (
        "Name:\t\tweb",
        "Service Mode:\tReplicated",
        " Replicas:\t3",
        " Parallelism:\t2",
        " Delay:\t\t500ms",
        " Image:\timg:1",
        " Device:\t/dev/host-x:/dev/inside-x:rw",
        " Ulimit:\tnofile=11:12",
        " Shared memory:\t128MiB",
        "  Memory:\t64MiB",
        "  CPU:\t\t1.5",
        " Memory and swap:\tunlimited",
        " Preferences:\tspread=node.labels.zone",
        " Test = HTTP http://:81/x",
        " StartPeriod = 5s",
    ):
        assert line in lines


def test_pretty_tells_what_a_service_waits_for_and_how_it_is_restarted() -> None:
    spec = msgspec.structs.replace(
        SERVICE.spec,
        priority=7,
        depends_on=(ServiceDependency(service="db", condition=DependencyCondition.HEALTHY),),
    )
    lines = pretty(inspected.service(Service(id="x", spec=spec)), {"net-x": "backend"}).splitlines()
    for line in ("DependsOn:", " db:\thealthy", "Priority:\t7", "RestartPolicy:", " Delay:\t1s", " backend"):
        assert line in lines
    assert " net-x" not in lines


def test_pretty_of_a_service_with_nothing_but_an_image() -> None:
    spec = ServiceSpec(name="web", replicas=1, task=TaskSpec(container=ContainerSpec(image="img:1")))
    text = pretty(inspected.service(Service(id="x", spec=spec)))
    assert "Healthcheck" not in text
    assert "Mounts" not in text
    assert "RestartPolicy" not in text

"""Everything that a container may be told, and what is refused with which words, under which path."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from pyswarm_common.model import (
    ContainerSpec,
    DeviceMapping,
    HealthCheck,
    LogDriver,
    Mount,
    MountType,
    NetworkAttachmentSpec,
    ResourceRequirements,
    Resources,
    ServiceSpec,
    TaskSpec,
    Ulimit,
)
from pyswarm_manager.api.validate import check_service_spec

GOOD = ContainerSpec(image="img:1")
V, T = MountType.VOLUME, MountType.TMPFS


def wrong_with(container: ContainerSpec, **task: Any) -> dict[str, str]:
    spec = ServiceSpec(name="web", replicas=1, task=TaskSpec(container=container, **task))
    return {path.removeprefix("task.container."): sentence for path, sentence in check_service_spec(spec)}


@pytest.mark.parametrize(
    "fields",
    [
        {"groups": ("docker", "1000"), "dns_options": ("ndots:2", "rotate"), "dns_search": (".", "a.test")},
        {"ulimits": (Ulimit("nofile", 1, 2), Ulimit("core", -1, -1), Ulimit("nproc", 5, -1)), "oom_score_adj": -1000},
        {"log_driver": LogDriver("json-file", {"max-size": "10m"}), "isolation": "default"},
        {"privileged": True, "devices": (DeviceMapping("/dev/fuse"), DeviceMapping("/dev/a", "/dev/b", "r"))},
        {
            "no_new_privileges": True,
            "seccomp_profile": '{"defaultAction": "SCMP_ACT_ALLOW"}',
            "apparmor_profile": "a-b",
        },
        {"seccomp_profile": "unconfined", "apparmor_profile": "unconfined", "shm_size_bytes": 1 << 20},
        {"pid_mode": "host", "ipc_mode": "host", "stdin_open": True, "registry_auth": b"{}"},
        {"healthcheck": HealthCheck(test=("HTTP", "http://:80/up"), start_interval_s=1.0)},
        {"healthcheck": HealthCheck(test=("TCP", ":80"))},
        {"mounts": (Mount(source="/a", target="/b", bind_propagation="rshared", bind_non_recursive=True),)},
        {"mounts": (Mount(T, target="/t", tmpfs_size_bytes=1, tmpfs_mode=0o1777),)},
        {
            "mounts": (
                Mount(V, "data", "/v", volume_no_copy=True, volume_labels={"a": "b"}, volume_driver="local"),
                Mount(V, "", "/w", volume_options={"type": "nfs", "device": ":/x"}, volume_subpath="a/b"),
            )
        },
        {"hostname": "{{.Node.Hostname}}-{{.Task.Slot}}", "env": ("A={{.Service.Name}}",)},
        {"mounts": (Mount(V, "data-{{.Task.Slot}}", "/v/{{.Task.Slot}}"),)},
    ],
    ids="-".join,
)
def test_what_a_container_may_be_told(fields: dict[str, Any]) -> None:
    assert wrong_with(replace(GOOD, **fields)) == {}


def _mount(**fields: Any) -> dict[str, Any]:
    return {"mounts": (Mount(**fields),)}


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"hostname": "{{.Node.Hostname"}, "hostname", "is never closed"),
        ({"env": ("A=1", "B={{nope .Task}}")}, "env[1]", 'function "nope" not defined'),
        (_mount(type=V, source="{{end}}", target="/b"), "mounts[0].source", 'unexpected "end"'),
        ({"groups": ("a:b",)}, "groups[0]", "write its name or number"),
        ({"dns_options": ("a b",)}, "dns_options[0]", "'a b' is not a valid DNS option"),
        ({"dns_search": ("",)}, "dns_search[0]", "is not a valid domain"),
        ({"ulimits": (Ulimit("files", 1, 1),)}, "ulimits[0].name", "invalid ulimit type: 'files'"),
        ({"ulimits": (Ulimit("nofile", 2, 1),)}, "ulimits[0].soft", "less than or equal to hard limit: 2 > 1"),
        ({"ulimits": (Ulimit("nofile", -1, 1),)}, "ulimits[0].soft", "less than or equal to hard limit: -1 > 1"),
        ({"ulimits": (Ulimit("nofile", -2, 1),)}, "ulimits[0]", "-1 (unlimited), zero or more"),
        ({"oom_score_adj": 1001}, "oom_score_adj", "range for oom score adj is [-1000, 1000]"),
        ({"log_driver": LogDriver("a b")}, "log_driver.name", "invalid logging driver 'a b'"),
        ({"log_driver": LogDriver("", {"": "x"})}, "log_driver.options", "a logging option needs a name"),
        ({"isolation": "hyperv"}, "isolation", "linux only supports 'default'"),
        ({"devices": (DeviceMapping("fuse"),)}, "devices[0].host_path", "'fuse' is not an absolute path"),
        ({"devices": (DeviceMapping("/dev/a", "", "x"),)}, "devices[0].permissions", "invalid device mode: 'x'"),
        ({"seccomp_profile": "[]"}, "seccomp_profile", "is not a JSON object"),
        ({"seccomp_profile": "x" * 300_000}, "seccomp_profile", "is too large"),
        ({"apparmor_profile": "a b"}, "apparmor_profile", "invalid AppArmor profile 'a b'"),
        ({"shm_size_bytes": -1}, "shm_size_bytes", "SHM size can not be less than 0"),
        ({"pid_mode": "container:x"}, "pid_mode", "invalid PID mode"),
        ({"ipc_mode": "shareable"}, "ipc_mode", "invalid IPC mode"),
        ({"registry_auth": b"x" * 70_000}, "registry_auth", "too large"),
        ({"healthcheck": HealthCheck(test=("HTTP", "ftp://x"))}, "healthcheck.test[1]", "begins with http://"),
        ({"healthcheck": HealthCheck(test=("TCP",))}, "healthcheck.test", "has exactly one target"),
        ({"healthcheck": HealthCheck(test=("UDP", "1"))}, "healthcheck.test", "unknown type 'UDP'"),
        (
            {"healthcheck": HealthCheck(start_interval_s=1e-9)},
            "healthcheck.start_interval_s",
            "StartInterval in Healthcheck cannot be less than 1ms",
        ),
        (
            _mount(source="/a", target="/b", bind_propagation="up"),
            "mounts[0].bind_propagation",
            "propagation mode: 'up'",
        ),
        (_mount(source="/a", target="/b", tmpfs_mode=1), "mounts[0].tmpfs_mode", "cannot mix tmpfs options"),
        (_mount(type=T, target="/b", tmpfs_mode=0o10000), "mounts[0].tmpfs_mode", "10000 is no file mode"),
        (
            _mount(type=V, target="/b", bind_non_recursive=True),
            "mounts[0].bind_non_recursive",
            "cannot mix bind options",
        ),
        (_mount(type=T, target="/b", volume_no_copy=True), "mounts[0].volume_no_copy", "cannot mix volume options"),
        (_mount(type=V, target="/b", volume_subpath="../x"), "mounts[0].volume_subpath", "a relative path within"),
        (_mount(type=V, target="/b", volume_labels={"": "x"}), "mounts[0].volume_labels", "invalid label name"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], path: str, words: str) -> None:
    found = wrong_with(replace(GOOD, **fields))
    assert list(found) == [path]
    assert words in found[path]


@pytest.mark.parametrize(
    ("resources", "path", "words"),
    [
        (ResourceRequirements(memory_swap_bytes=1 << 30), "memory_swap_bytes", "always set the Memory limit"),
        (
            ResourceRequirements(limits=Resources(memory_bytes=64 << 20), memory_swap_bytes=32 << 20),
            "memory_swap_bytes",
            "should be larger than memory limit",
        ),
        (ResourceRequirements(memory_swap_bytes=-2), "memory_swap_bytes", "use -1 for no limit"),
        (ResourceRequirements(memory_swappiness=101), "memory_swappiness", "range is 0-100"),
    ],
    ids=["no-memory", "less-than-memory", "negative", "swappiness"],
)
def test_swap(resources: ResourceRequirements, path: str, words: str) -> None:
    found = wrong_with(GOOD, resources=resources)
    assert list(found) == [f"task.resources.{path}"]
    assert words in found[f"task.resources.{path}"]


def test_good_swap_and_options_of_networks() -> None:
    swap = ResourceRequirements(limits=Resources(memory_bytes=64 << 20), memory_swap_bytes=-1, memory_swappiness=0)
    assert wrong_with(GOOD, resources=swap) == {}
    attachment = NetworkAttachmentSpec(target="net", driver_options={"mtu": "9000"})
    assert wrong_with(GOOD, networks=(attachment,)) == {
        "task.networks[0].driver_options": "network driver option 'mtu' is not supported"
    }

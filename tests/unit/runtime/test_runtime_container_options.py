"""Profiles, log options, volumes and devices as texts: what they mean, and that no text does more than be refused."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common.errors import InvalidArgument, PyswarmError, Unsupported
from pyswarm_runtime import linux
from pyswarm_runtime.log_drivers import LogSettings, log_settings
from pyswarm_runtime.oci.mounts import root_propagation
from pyswarm_runtime.oci.resources import UNLIMITED, check_resources, resources, rlimit
from pyswarm_runtime.oci.seccomp_profile import check_profile, custom_profile
from pyswarm_runtime.types import ContainerConfig, Device, Mount, Ulimit
from pyswarm_runtime.users import ProcessUser, with_groups
from pyswarm_runtime.volume_mounts import VolumeMount, volume_mount

MIB = 1024 * 1024
ARGUMENT = {"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}
PROFILE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"name": "write", "action": "SCMP_ACT_ALLOW"},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["arm_sync"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
        {
            "names": ["bpf"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
            "args": [{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}],
        },
        {"names": [], "action": "SCMP_ACT_ALLOW"},
    ],
}


def names(*capabilities: str) -> list[str]:
    text = msgspec.json.encode(PROFILE).decode()
    document = msgspec.json.decode(bytes(custom_profile(text, "x86_64", frozenset(capabilities))))
    return [name for rule in document["syscalls"] for name in rule["names"]]


def test_rules_hold_for_their_capabilities_architectures_and_kernels() -> None:
    assert names() == ["read", "write", "clone", "bpf"]
    assert names("CAP_SYS_ADMIN") == ["read", "write", "mount", "bpf"]


def test_a_profile_becomes_what_the_oci_runtime_reads() -> None:
    text = msgspec.json.encode(PROFILE).decode()
    document = msgspec.json.decode(bytes(custom_profile(text, "x86_64", frozenset())))
    assert document["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert (document["defaultAction"], document["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    assert document["syscalls"][-1]["args"] == [{"index": 0, "value": 5, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"defaultAction": "LET"}, "invalid default action"),
        ({"architectures": ["SCMP_ARCH_ARM"]}, "use either one"),
        ({"defaultErrnoRet": 5000}, "is no error number"),
        ({"syscalls": [{"names": ["a b"], "action": "SCMP_ACT_ALLOW"}]}, "is no system call's name"),
        ({"syscalls": [{"names": ["a"], "action": "x"}]}, "invalid action"),
        ({"syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_LOG"}]}, "both 'name' and 'names'"),
        ({"syscalls": "all"}, "Decoding seccomp profile failed"),
    ],
    ids=["action", "architectures", "errno", "name", "rule", "names", "type"],
)
def test_profiles_that_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        check_profile(msgspec.json.encode({**PROFILE, **changes}).decode())


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_CMP_EQ"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["names", "action", "args", "includes", "caps", "op", "index"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.text(max_size=60) | JSON.map(lambda rules: msgspec.json.encode({**PROFILE, "syscalls": [rules]}).decode()))
def test_any_profile_is_refused_or_usable(text: str) -> None:
    try:
        check_profile(text)
    except InvalidArgument:
        return
    custom_profile(text, "x86_64", frozenset())


@pytest.mark.parametrize(
    ("driver", "options", "expected"),
    [
        ("", {}, LogSettings("json-file", 16 * MIB, 2)),
        ("json-file", {"max-size": "10m", "max-file": "3"}, LogSettings("json-file", 10 * MIB, 3)),
        ("local", {}, LogSettings("local", 20 * MIB, 5)),
        ("none", {"mode": "blocking"}, LogSettings("none", 16 * MIB, 2)),
    ],
    ids=["default", "json-file", "local", "none"],
)
def test_log_drivers(driver: str, options: dict[str, str], expected: LogSettings) -> None:
    assert log_settings(driver, options) == expected


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("gelf", {}, "no log driver named 'gelf' is registered"),
        ("none", {"max-size": "1m"}, "unknown log opt 'max-size' for none log driver"),
        ("json-file", {"tag": "x"}, "unknown log opt 'tag'"),
        ("json-file", {"max-size": "0"}, "invalid max-size"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"mode": "non-blocking"}, "only blocking is"),
    ],
)
def test_log_options_that_are_refused(driver: str, options: dict[str, str], words: str) -> None:
    with pytest.raises((InvalidArgument, Unsupported), match=words):
        log_settings(driver, options)


@given(
    st.sampled_from(["", "local", "x"]),
    st.dictionaries(st.sampled_from(["max-size", "max-file"]), st.text(max_size=12)),
)
def test_any_log_options_are_read_or_refused(driver: str, options: dict[str, str]) -> None:
    with contextlib.suppress(PyswarmError):
        settings = log_settings(driver, options)
        assert settings.max_size > 0
        assert settings.max_files > 0


def test_options_of_volumes() -> None:
    assert volume_mount({}) is None
    nfs = volume_mount({"type": "nfs", "device": ":/x", "o": "addr=192.0.2.1,ro,vers=4"})
    assert nfs == VolumeMount("nfs", ":/x", linux.MS_RDONLY, ("addr=192.0.2.1", "vers=4"))
    assert volume_mount({"type": "none", "device": "/x", "o": "bind"}) == VolumeMount("", "/x", linux.MS_BIND, ())


def test_limits() -> None:
    assert rlimit(Ulimit(name="core", soft=0, hard=-1)) == {"type": "RLIMIT_CORE", "soft": 0, "hard": UNLIMITED}
    config = ContainerConfig(image="a", memory_bytes=64 * MIB, memory_swap_bytes=-1, memory_swappiness=3)
    assert resources(config, (), 1)["memory"] == {"limit": 64 * MIB, "swap": -1, "swappiness": 3}
    assert "swappiness" not in resources(config, (), 2)["memory"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"memory_swap_bytes": 1}, "always set the Memory limit"),
        ({"memory_bytes": 64 * MIB, "memory_swap_bytes": MIB}, "should be larger than memory limit"),
        ({"memory_swappiness": 101}, "range is 0-100"),
        ({"oom_score_adj": 2000}, "range for oom score adj"),
        ({"ulimits": (Ulimit(name="x", soft=0, hard=0),)}, "invalid ulimit type"),
        ({"ulimits": (Ulimit(name="core", soft=-1, hard=0),)}, "soft limit must be less"),
        ({"devices": (Device(host_path="/dev/a", permissions="x"),)}, "invalid device mode"),
        ({"shm_size_bytes": -1}, "cannot be negative"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_no_host_could_grant(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        check_resources(ContainerConfig(image="a", **fields))


def test_the_root_lets_mounts_travel_as_far_as_one_of_them_must() -> None:
    def root(*propagations: str) -> str:
        mounts = tuple(Mount(type="bind", source="/a", target="/b", propagation=name) for name in propagations)
        return root_propagation(ContainerConfig(image="a", mounts=mounts))

    assert (root(), root("private"), root("slave"), root("rslave", "rshared")) == (
        "rprivate",
        "rprivate",
        "rslave",
        "shared",
    )


def test_groups_are_added_once() -> None:
    user = with_groups(ProcessUser(1, 2, (2, 3)), ("web", "3", "99"), "web:x:50:\n")
    assert user.additional_gids == (2, 3, 50, 99)

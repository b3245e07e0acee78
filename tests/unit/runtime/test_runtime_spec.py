from typing import Any

import msgspec
import pytest

from pyswarm_common.errors import InvalidArgument
from pyswarm_runtime.etcfiles import hosts_file, resolv_conf
from pyswarm_runtime.execution import exec_process
from pyswarm_runtime.oci import defaults
from pyswarm_runtime.oci.seccomp import profile
from pyswarm_runtime.oci.spec import (
    BundlePaths,
    HostFacts,
    build_spec,
    capabilities,
    process_args,
    process_env,
    validate,
)
from pyswarm_runtime.types import ContainerConfig, ImageConfig, Mount, Ulimit
from pyswarm_runtime.users import ProcessUser

IMAGE = ImageConfig(entrypoint=("/entry",), cmd=("serve",), env=("A=image", "B=image"), working_dir="/srv")
ALL = frozenset(defaults.ALL_CAPABILITIES)
PATHS = BundlePaths(rootfs="/c/rootfs", hosts="/c/hosts", hostname="/c/hostname", resolv_conf="/c/resolv.conf")
V2 = HostFacts(architecture="x86_64", cgroup_version=2)


def config(**settings: Any) -> ContainerConfig:
    return ContainerConfig(image="app", **settings)


def spec(image: ImageConfig = IMAGE, facts: HostFacts = V2, user: ProcessUser | None = None, **settings: Any) -> Any:
    built = build_spec("c" * 64, config(**settings), image, user or ProcessUser(), PATHS, facts, "/pyswarm/c")
    return msgspec.json.decode(msgspec.json.encode(built))


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        (None, None, ("/entry", "serve")),
        (None, ("other",), ("/entry", "other")),
        (("/mine",), None, ("/mine",)),
        (("/mine",), ("x",), ("/mine", "x")),
        ((), ("x",), ("x",)),
        (None, (), ("/entry",)),
    ],
)
def test_process_args(entrypoint: Any, command: Any, expected: tuple[str, ...]) -> None:
    assert process_args(config(entrypoint=entrypoint, command=command), IMAGE) == expected


def test_no_command() -> None:
    with pytest.raises(InvalidArgument, match="No command specified"):
        process_args(config(), ImageConfig())


def test_env_later_wins_and_bare_name_removes() -> None:
    env = process_env(config(env=("B=mine", "PATH", "C=x=y")), IMAGE, "host", "/root")
    assert env == ["HOSTNAME=host", "HOME=/root", "A=image", "B=mine", "C=x=y"]


@pytest.mark.parametrize(
    ("settings", "present", "absent"),
    [
        ({}, {"CAP_CHOWN"}, {"CAP_SYS_ADMIN"}),
        ({"cap_add": ("sys_admin",)}, {"CAP_CHOWN", "CAP_SYS_ADMIN"}, set()),
        ({"cap_drop": ("ALL",)}, set(), {"CAP_CHOWN"}),
        ({"cap_drop": ("ALL",), "cap_add": ("NET_ADMIN",)}, {"CAP_NET_ADMIN"}, {"CAP_CHOWN"}),
        ({"cap_add": ("ALL",), "cap_drop": ("CAP_MKNOD",)}, {"CAP_SYS_ADMIN"}, {"CAP_MKNOD"}),
        ({"privileged": True}, ALL, set()),
    ],
)
def test_capabilities(settings: dict[str, Any], present: set[str], absent: set[str]) -> None:
    result = set(capabilities(config(**settings), ALL))
    assert present <= result
    assert not absent & result


def test_capabilities_that_the_host_lacks_are_not_handed_on() -> None:
    available = ALL - {"CAP_SYS_RESOURCE"}
    assert "CAP_SYS_RESOURCE" not in capabilities(config(privileged=True), available)
    assert "CAP_SYS_RESOURCE" not in capabilities(config(cap_add=("ALL",)), available)


def test_limits() -> None:
    resources = spec(nano_cpus=1_500_000_000, memory_bytes=64 << 20, pids_limit=7, cpu_shares=9)["linux"]["resources"]
    assert resources["cpu"] == {"period": 100_000, "quota": 150_000, "shares": 9}
    assert resources["memory"] == {"limit": 64 << 20, "swap": 128 << 20}
    assert resources["pids"] == {"limit": 7}
    assert set(spec()["linux"]["resources"]) == {"devices"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"type": "network"}),
        ({"netns_path": "/run/netns/x"}, {"type": "network", "path": "/run/netns/x"}),
        ({"host_network": True}, None),
    ],
)
def test_network_namespace(settings: dict[str, Any], expected: dict[str, str] | None) -> None:
    found = [entry for entry in spec(**settings)["linux"]["namespaces"] if entry["type"] == "network"]
    assert found == ([expected] if expected else [])


@pytest.mark.parametrize(("version", "is_private"), [(1, False), (2, True)])
def test_cgroup_namespace_only_with_v2(version: int, is_private: bool) -> None:
    kinds = [entry["type"] for entry in spec(facts=HostFacts("x86_64", version))["linux"]["namespaces"]]
    assert ("cgroup" in kinds) is is_private


def test_another_user_holds_no_capability_but_may_gain_them() -> None:
    process = spec(user=ProcessUser(33, 34, (34, 35), "/srv"))["process"]
    assert process["user"] == {"uid": 33, "gid": 34, "additionalGids": [34, 35]}
    assert process["capabilities"]["effective"] == []
    assert "CAP_CHOWN" in process["capabilities"]["bounding"]


def test_mounts_take_the_place_of_defaults_and_parents_come_first() -> None:
    mounts = spec(
        mounts=(
            Mount(type="bind", source="/h/b", target="/a/b/", read_only=True),
            Mount(type="bind", source="/h/a", target="/a"),
            Mount(type="tmpfs", target="/dev/shm", options=("size=1m",)),
        )
    )["mounts"]
    targets = [mount["destination"] for mount in mounts]
    assert targets.count("/dev/shm") == 1
    assert targets.index("/a") < targets.index("/a/b")
    by_target = {mount["destination"]: mount for mount in mounts}
    assert by_target["/a/b"]["options"] == ["rbind", "rprivate", "ro"]
    assert "size=1m" in by_target["/dev/shm"]["options"]
    assert by_target["/etc/hosts"]["source"] == "/c/hosts"


@pytest.mark.parametrize("is_privileged", [True, False])
def test_privileged_lifts_what_confines(is_privileged: bool) -> None:
    linux = spec(privileged=is_privileged)["linux"]
    assert ("seccomp" not in linux, "maskedPaths" not in linux) == (is_privileged, is_privileged)


def test_a_compiled_filter_never_replaces_the_profile_in_the_configuration() -> None:
    facts = HostFacts("x86_64", 2, seccomp_filter="AAAA")
    built = spec(facts=facts)
    assert built["annotations"] == {"run.oci.seccomp_bpf_data": "AAAA"}
    assert built["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "annotations" not in spec(facts=facts, privileged=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"working_dir": "relative"}, "absolute path"),
        ({"mounts": (Mount(type="bind", source="x", target="/x"),)}, "mount source"),
        ({"mounts": (Mount(type="bind", source="/x", target="x"),)}, "mount target"),
        ({"mounts": (Mount(type="tmpfs", target="/a/.."),)}, "image"),
        ({"cap_add": ("FLY",)}, "invalid capability"),
        ({"memory_bytes": 1024}, "Minimum memory limit"),
        ({"memory_bytes": -1}, "negative"),
        ({"host_network": True, "netns_path": "/x"}, "not both"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        validate(config(**settings), IMAGE)


def test_ulimits_and_init() -> None:
    process = spec(ulimits=(Ulimit(name="nofile", soft=1, hard=2),), init=True)["process"]
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}]
    assert process["args"] == ["/dev/init", "--", "/entry", "serve"]


def test_exec_is_as_the_container_but_without_terminal() -> None:
    process = exec_process(spec(tty=True), ["ls"])
    assert (process["args"], process["terminal"], process["cwd"]) == (["ls"], False, "/srv")
    with pytest.raises(InvalidArgument):
        exec_process(spec(), [])


def test_seccomp_follows_capabilities() -> None:
    def names(*held: str) -> set[str]:
        rules = profile("x86_64", frozenset(held))["syscalls"]
        return {
            name
            for rule in rules
            if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule
            for name in rule["names"]
        }

    plain, admin = names(), names("CAP_SYS_ADMIN")
    assert {"mount", "setns", "clone3"} <= admin - plain
    assert {"read", "execve", "openat"} <= plain
    assert not {"kexec_load", "keyctl", "add_key", "bpf", "userfaultfd", "io_uring_setup"} & plain
    refused = [rule for rule in profile("x86_64", frozenset())["syscalls"] if rule["action"] == "SCMP_ACT_ERRNO"]
    assert refused == [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]


def test_hosts_file() -> None:
    text = hosts_file("alpha", ("db:10.0.0.1", "six:[fe80::1]"))
    assert "10.0.0.1\tdb\n" in text
    assert "fe80::1\tsix\n" in text
    for wrong in ("noaddress", ":1.2.3.4", "a:", "a:1.2.3.4\n6.6.6.6 evil"):
        with pytest.raises(InvalidArgument):
            hosts_file("", (wrong,))


def test_resolv_conf() -> None:
    host = "# made by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch home\noptions edns0\n"
    assert resolv_conf((), (), (), host) == "nameserver 10.0.0.1\nsearch home\noptions edns0\n"
    own = resolv_conf(("127.0.0.11",), ("a", "b"), ("ndots:0",), host)
    assert own == "nameserver 127.0.0.11\nsearch a b\noptions ndots:0\n"
    with pytest.raises(InvalidArgument):
        resolv_conf(("1.1.1.1\nnameserver 6.6.6.6",), (), (), host)

"""What the flags of a container make of a specification, and what they refuse in docker's words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_cli.parse import containers, mounts
from pyswarm_cli.service import build
from pyswarm_cli.service.flags import CREATE_LISTS, SCALARS, UPDATE_LISTS, declared
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import DeviceMapping, HealthCheck, LogDriver, Mount, MountType, ServiceSpec, Ulimit


def read(argv: list[str], lists: list[Any], extra: list[Any]) -> dict[str, Any]:
    """The options as click reads them; a refusal is raised."""
    seen: dict[str, Any] = {}

    @click.command()
    @declared([*SCALARS, *lists, *extra])
    def command(**options: Any) -> None:
        seen.update(options)

    result = CliRunner().invoke(command, argv)
    if result.exit_code != 0:
        raise InvalidArgument(result.output)
    return seen


def created(*argv: str) -> ServiceSpec:
    extra = [click.option("--name"), click.option("--mode", default="replicated")]
    return build.create("img:1", (), read(list(argv), CREATE_LISTS, extra), {})


def updated(spec: ServiceSpec, *argv: str) -> ServiceSpec:
    extra = [click.option("--image"), click.option("--args"), click.option("--force", is_flag=True)]
    return build.change(spec, read(list(argv), UPDATE_LISTS, extra), {}, {})


@pytest.mark.parametrize(
    ("argv", "field", "value"),
    [
        (["--group", "a", "--group", "b"], "groups", ("a", "b")),
        (["--dns-option", "ndots:2", "--dns-search", "x"], "dns_options", ("ndots:2",)),
        (["--dns-search", "x"], "dns_search", ("x",)),
        (
            ["--ulimit", "nofile=1:2", "--ulimit", "core=-1"],
            "ulimits",
            (Ulimit("nofile", 1, 2), Ulimit("core", -1, -1)),
        ),
        (["--ulimit", "nofile=1", "--ulimit", "nofile=2"], "ulimits", (Ulimit("nofile", 2, 2),)),
        (["--oom-score-adj", "-500"], "oom_score_adj", -500),
        (["--log-driver", "local", "--log-opt", "max-size=1m"], "log_driver", LogDriver("local", {"max-size": "1m"})),
        (["--log-opt", "max-file=3"], "log_driver", LogDriver("", {"max-file": "3"})),
        (["--isolation", "default"], "isolation", "default"),
        (["--privileged"], "privileged", True),
        (["--device", "/dev/a:/dev/b:r"], "devices", (DeviceMapping("/dev/a", "/dev/b", "r"),)),
        (["--security-opt", "no-new-privileges"], "no_new_privileges", True),
        (["--security-opt", "no-new-privileges:true"], "no_new_privileges", True),
        (["--security-opt", "apparmor=mine"], "apparmor_profile", "mine"),
        (["--security-opt", "seccomp=unconfined"], "seccomp_profile", "unconfined"),
        (["--shm-size", "1g"], "shm_size_bytes", 1 << 30),
        (["--pid", "host"], "pid_mode", "host"),
        (["--ipc", "private"], "ipc_mode", ""),
        (["--health-http", "http://:80/"], "healthcheck", HealthCheck(("HTTP", "http://:80/"))),
        (
            ["--health-tcp", ":80", "--health-start-interval", "2s"],
            "healthcheck",
            HealthCheck(("TCP", ":80"), start_interval_s=2),
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_one_flag_one_field(argv: list[str], field: str, value: object) -> None:
    assert getattr(created(*argv).task.container, field) == value


def test_swap() -> None:
    resources = created("--memory-swap", "-1", "--memory-swappiness", "0").task.resources
    assert (resources.memory_swap_bytes, resources.memory_swappiness) == (-1, 0)
    changed = updated(created("--memory-swappiness", "5"), "--memory-swappiness", "-1")
    assert changed.task.resources.memory_swappiness is None


def test_a_profile_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    spec = created("--security-opt", f"seccomp={tmp_path}/p.json")
    assert spec.task.container.seccomp_profile == '{"defaultAction": "SCMP_ACT_ALLOW"}'
    back = updated(spec, "--security-opt", "seccomp=builtin")
    assert back.task.container.seccomp_profile == ""
    (tmp_path / "bad.json").write_text("[")
    for name in ("bad.json", "none.json"):
        with pytest.raises(InvalidArgument, match="seccomp profile"):
            created("--security-opt", f"seccomp={tmp_path}/{name}")


def test_update_adds_and_removes_by_name() -> None:
    spec = created(
        "--ulimit", "nofile=1", "--ulimit", "core=0", "--device", "/dev/a", "--group", "x", "--dns-search", "s"
    )
    argv = ["--ulimit-add", "nofile=5", "--ulimit-rm", "core", "--device-add", "/dev/b:/dev/c", "--device-rm", "/dev/a"]
    container = updated(spec, *argv, "--group-add", "y", "--group-rm", "x", "--dns-search-rm", "s").task.container
    assert container.ulimits == (Ulimit("nofile", 5, 5),)
    assert container.devices == (DeviceMapping("/dev/b", "/dev/c", "rwm"),)
    assert (container.groups, container.dns_search) == (("y",), ())


def test_update_of_the_log_driver() -> None:
    spec = created("--log-driver", "json-file", "--log-opt", "max-size=1m")
    assert updated(spec, "--log-opt", "max-file=2").task.container.log_driver == LogDriver(
        "json-file", {"max-size": "1m", "max-file": "2"}
    )
    assert updated(spec, "--log-driver", "none").task.container.log_driver == LogDriver("none")
    assert updated(spec).task.container.log_driver == spec.task.container.log_driver


def test_an_update_without_flags_changes_nothing() -> None:
    spec = created("--privileged", "--pid", "host", "--security-opt", "no-new-privileges", "--health-tcp", ":80")
    assert updated(spec) == spec


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--ulimit", "nofile"], "invalid ulimit argument: nofile"),
        (["--ulimit", "files=1"], "invalid ulimit type: files"),
        (["--ulimit", "nofile=1:2:3"], "too many limit value arguments - 1:2:3"),
        (["--ulimit", "nofile=2:1"], "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
        (["--oom-score-adj", "1001"], "range for oom score adj is [-1000, 1000]"),
        (["--memory-swappiness", "101"], "valid memory swappiness range is 0-100"),
        (["--isolation", "hyperv"], "linux only supports 'default'"),
        (["--device", "fuse"], "fuse is not an absolute path"),
        (["--device", "/a:/b:x"], "bad mode specified: x"),
        (["--security-opt", "label=disable"], "SELinux labels are not supported"),
        (["--security-opt", "x"], 'invalid --security-opt: "x"'),
        (["--credential-spec", "x"], 'value must be prefixed with "config://"'),
        (["--credential-spec", "file://x"], "Windows containers"),
        (["--pid", "container:x"], "use host or private"),
        (["--health-http", "ftp://x"], "invalid health probe"),
        (["--health-tcp", "x"], "invalid TCP health probe"),
        (["--health-tcp", ":80", "--health-cmd", "x"], "only one of --health-cmd, --health-http and --health-tcp"),
        (["--no-healthcheck", "--health-tcp", ":80"], "--no-healthcheck conflicts with --health-* options"),
        (["--mount", "type=npipe,target=/x"], "named pipes are Windows'"),
        (["--mount", "target=/x,bind-propagation=shared"], "cannot mix 'bind-*' options with mount type 'volume'"),
        (["--mount", "type=bind,source=/a"], "target is required"),
        (["--mount", "target=/x,colour=blue"], "unexpected key 'colour' in 'colour=blue'"),
        (["--mount", "target=/x,bind-recursive=maybe"], "invalid value for bind-recursive: maybe"),
        (["--network", "name=n,mac-address=02:42:ac:11:00:02"], "cannot be chosen"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_refused(argv: list[str], words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        created(*argv)
    assert words in " ".join(str(refused.value).split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "type=bind,src=/a,dst=/b,bind-propagation=rshared,bind-nonrecursive,consistency=cached",
            Mount(source="/a", target="/b", bind_propagation="rshared", bind_non_recursive=True),
        ),
        ("type=bind,src=/a,dst=/b,bind-recursive=disabled", Mount(source="/a", target="/b", bind_non_recursive=True)),
        ("type=bind,src=/a,dst=/b,ro,bind-recursive=writable", Mount(source="/a", target="/b", read_only=True)),
        (
            "src=v,dst=/v,volume-nocopy=true,volume-label=a=b,volume-driver=local,volume-opt=type=nfs,volume-subpath=x/y",
            Mount(
                MountType.VOLUME,
                "v",
                "/v",
                volume_no_copy=True,
                volume_labels={"a": "b"},
                volume_driver="local",
                volume_options={"type": "nfs"},
                volume_subpath="x/y",
            ),
        ),
        (
            "type=tmpfs,dst=/t,tmpfs-size=64k,tmpfs-mode=1770",
            Mount(MountType.TMPFS, target="/t", tmpfs_size_bytes=65536, tmpfs_mode=0o1770),
        ),
    ],
    ids=["bind", "not-recursive", "writable", "volume", "tmpfs"],
)
def test_mounts_in_full(text: str, expected: Mount) -> None:
    assert mounts.mount(text) == expected


PARSERS: tuple[Callable[[str], object], ...] = (
    containers.ulimit,
    containers.device,
    containers.security_option,
    containers.oom_score,
    containers.swappiness,
    containers.isolation,
    containers.credential_spec,
    containers.namespace_mode,
    mounts.mount,
)
WORDS = st.text(max_size=40) | st.lists(
    st.sampled_from(["type=", "bind", "tmpfs-mode=", ",", "=", ":", "/dev/x", "rwm", "nofile", "-1", "9", "target=/a"]),
    max_size=8,
).map("".join)


@given(WORDS)
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in PARSERS:
        try:
            parse(text)
        except InvalidArgument as error:
            assert str(error)  # noqa: PT017  a refusal says something

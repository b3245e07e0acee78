"""What is chosen on which host, with control group trees made of plain files."""

import os
import resource
from pathlib import Path

import pytest

from pyswarm_common.errors import Unsupported
from pyswarm_runtime import RuntimeConfig, preflight
from pyswarm_runtime.cgroups import CgroupLayout, ContainerGroups, detect

V1 = CgroupLayout(1, False, (Path("/x"),))
HYBRID = CgroupLayout(1, True, (Path("/x"),))
V2 = CgroupLayout(2, False, (Path("/x"),))


def config(oci_runtime: str | None = None) -> RuntimeConfig:
    return RuntimeConfig(root=Path("/r"), run_dir=Path("/d"), oci_runtime=oci_runtime)


@pytest.fixture(autouse=True)
def ordinary_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root with everything installed and no limits."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(preflight, "find_program", lambda name: f"/bin/{name}")
    monkeypatch.setattr(preflight, "own_capabilities", lambda: frozenset({"CAP_SYS_RESOURCE"}))


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    monkeypatch.setattr(preflight, "find_program", lambda name: None if name in missing else f"/bin/{name}")


@pytest.mark.parametrize(("layout", "chosen"), [(V1, "crun"), (V2, "crun"), (HYBRID, "runc")])
def test_choice(layout: CgroupLayout, chosen: str) -> None:
    result = preflight.check_host(config(), layout)
    assert (result.oci_runtime, result.cgroup_version, result.cgroup_hybrid) == (
        chosen,
        layout.version,
        layout.is_hybrid,
    )


def test_crun_with_v2_needs_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "own_capabilities", frozenset)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8192, 8192))
    result = preflight.check_host(config(), V2)
    assert result.oci_runtime == "runc"
    assert "CAP_SYS_RESOURCE" in str(result)
    assert preflight.check_host(config(), V1).oci_runtime == "crun"


def test_a_wish_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert preflight.check_host(config("runc"), V2).oci_runtime_path == "/bin/runc"
    without(monkeypatch, "kata")
    with pytest.raises(Unsupported, match="'kata' is not installed"):
        preflight.check_host(config("kata"), V2)


@pytest.mark.parametrize(
    ("missing", "layout", "message"),
    [
        (("conmon",), V2, "apt-get install conmon"),
        (("crun", "runc"), V2, "apt-get install crun"),
        (("runc",), HYBRID, "apt-get install runc"),
        ((), CgroupLayout(1, False, ()), "no control groups"),
    ],
)
def test_what_lacks_is_said(
    monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], layout: CgroupLayout, message: str
) -> None:
    without(monkeypatch, *missing)
    with pytest.raises(Unsupported, match=message):
        preflight.check_host(config(), layout)


def test_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unsupported, match="need root"):
        preflight.check_host(config(), V2)


def tree(root: Path, *files: str) -> Path:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return root


def test_detection(tmp_path: Path) -> None:
    v2 = tree(tmp_path / "v2", "cgroup.controllers")
    v1 = tree(tmp_path / "v1", "memory/cgroup.procs", "pids/cgroup.procs", "other/file")
    hybrid = tree(tmp_path / "hybrid", "memory/cgroup.procs", "unified/cgroup.controllers", "unified/cgroup.procs")
    (v1 / "mem").symlink_to("memory")
    assert detect(v2) == CgroupLayout(2, False, (v2,))
    assert detect(v1) == CgroupLayout(1, False, (v1 / "memory", v1 / "pids"))
    assert detect(hybrid) == CgroupLayout(1, True, (hybrid / "memory", hybrid / "unified"))
    assert detect(tmp_path / "none").hierarchies == ()


@pytest.mark.parametrize(
    ("version", "name", "text", "expected"),
    [
        (2, "memory.events", "low 0\nmax 3\noom 1\noom_kill 1\n", True),
        (2, "memory.events", "oom 1\noom_kill 0\n", False),
        (2, "memory.events", "garbage\n", False),
        (1, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", True),
        (1, "memory.oom_control", "oom_kill_disable 0\nunder_oom 1\n", False),
        (2, "memory.current", "1", False),
    ],
)
def test_out_of_memory(tmp_path: Path, version: int, name: str, text: str, expected: bool) -> None:
    layout = CgroupLayout(2 if version == 2 else 1, False, (tmp_path,))
    group = tmp_path / "pyswarm/node/c"
    group.mkdir(parents=True)
    (group / name).write_text(text)
    groups = ContainerGroups(layout, "pyswarm/node")
    assert groups.path_of("c") == "/pyswarm/node/c"
    assert groups.is_oom_killed("c") is expected
    assert not groups.is_oom_killed("gone")


def test_the_parent_goes_only_as_far_as_it_is_empty(tmp_path: Path) -> None:
    mine, other = (ContainerGroups(CgroupLayout(2, False, (tmp_path,)), f"/pyswarm/{name}") for name in ("a", "b"))
    for group in ("pyswarm/a/conmon", "pyswarm/b"):
        (tmp_path / group).mkdir(parents=True)
    mine.remove_parent()
    assert [path.name for path in (tmp_path / "pyswarm").iterdir()] == ["b"]
    other.remove_parent()
    assert list(tmp_path.iterdir()) == []

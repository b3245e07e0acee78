"""Hosts, switch and faults of a lab, with a harmless program in place of pyswarmd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyswarm_lab import Lab, LabError, cgroups, leftovers
from pyswarm_lab.processes import reference, send_signal, wait_gone

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces and interfaces"),
]
# Plays pyswarmd: answers to that name, and has a child in a pid namespace of its own, as a container is.
DAEMON = ("/bin/sh", "-c", "unshare --pid --fork sleep 1000 & exec sleep 1001")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab.up(f"it-{os.getpid()}", 2, 1, init=False, daemon=DAEMON, base=tmp_path / "labs")
    try:
        yield made
    finally:
        assert made.down() == []


def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)


def reaches(lab: Lab, host: str, address: str) -> bool:
    return lab.exec(host, ["ping", "-c", "1", "-W", "1", address]).returncode == 0


def test_a_host_has_its_own_name_processes_interfaces_and_state_folder(lab: Lab) -> None:
    assert lab.exec("n2", ["hostname"]).stdout.strip() == "n2"
    assert (
        lab.exec("n2", ["readlink", "/proc/self/ns/pid"]).stdout
        != lab.exec("n1", ["readlink", "/proc/self/ns/pid"]).stdout
    )
    assert sorted(lab.exec("n2", ["ls", "/sys/class/net"]).stdout.split()) == ["eth0", "lo"]
    lab.exec("n2", ["touch", "/var/lib/pyswarm/mine", "/run/pyswarm/mine"], check=True)
    assert lab.exec("n1", ["ls", "/var/lib/pyswarm", "/run/pyswarm"]).stdout.split() == [
        "/run/pyswarm:",
        "/var/lib/pyswarm:",
    ]
    assert not Path("/run/pyswarm/mine").exists()


def test_what_a_host_writes_to_etc_is_its_own_and_outlives_its_daemon_and_its_power(lab: Lab) -> None:
    private = [folder for folder in ("/etc", "/root", "/var/tmp") if not Path(sys.prefix).is_relative_to(folder)]
    places = [f"{folder}/pyswarm-{lab.name}" for folder in private]
    lab.exec("n1", ["touch", *places], check=True)
    assert not any(Path(place).exists() for place in places)
    assert lab.exec("n2", ["ls", *places]).returncode != 0
    assert lab.exec("n1", ["cat", "/etc/hostname"]).stdout == "n1\n"
    assert lab.exec("n1", ["cat", "/etc/passwd"]).stdout == Path("/etc/passwd").read_text()
    lab.start("n1")  # its daemon again
    assert lab.exec("n1", ["ls", *places]).returncode == 0
    lab.kill("n1")
    lab.start("n1")
    assert lab.exec("n1", ["ls", *places]).returncode == 0


def test_exec_passes_input_exit_code_and_errors_on(lab: Lab) -> None:
    done = lab.exec("n1", ["sh", "-c", "cat; echo problem >&2; exit 7"], stdin="hello")
    assert (done.returncode, done.stdout, done.stderr) == (7, "hello", "problem\n")


def test_hosts_reach_one_another_and_the_switch_until_the_cable_is_cut(lab: Lab) -> None:
    assert reaches(lab, "n1", lab.host("n3").address)
    assert lab.outside(["ping", "-c", "1", "-W", "1", lab.host("n1").address]).returncode == 0
    lab.cut("n3")
    assert lab.is_cut("n3")
    assert not reaches(lab, "n1", lab.host("n3").address)
    lab.heal("n3")
    eventually(lambda: reaches(lab, "n1", lab.host("n3").address))


def test_a_power_cut_ends_everything_in_the_host_and_keeps_its_state(lab: Lab) -> None:
    lab.exec("n1", ["touch", "/var/lib/pyswarm/kept", "/run/pyswarm/lost"], check=True)
    init = lab.host("n1").init
    assert init is not None
    inventory = leftovers.take_inventory([init])
    lab.kill("n1")
    assert not lab.is_running("n1")
    eventually(lambda: not leftovers._processes(lab.layout, inventory) or _only_others(lab, inventory))
    with pytest.raises(LabError, match="is off"):
        lab.exec("n1", ["true"])
    with pytest.raises(LabError, match="off already"):
        lab.kill("n1")

    lab.start("n1")
    assert lab.is_running("n1")
    assert lab.exec("n1", ["ls", "/var/lib/pyswarm", "/run/pyswarm"]).stdout.split() == [
        "/run/pyswarm:",
        "/var/lib/pyswarm:",
        "kept",
    ]
    eventually(lambda: reaches(lab, "n1", lab.host("n2").address))


def _only_others(lab: Lab, inventory: leftovers.Inventory) -> bool:
    """No process is in a namespace of the dead host (the other hosts' first processes are of the lab, too)."""
    others = {record.init.pid for record in lab.hosts if record.init} | {lab._holder().pid}
    texts = leftovers._processes(lab.layout, inventory)
    return all(int(text.split()[1]) in others for text in texts)


def test_a_killed_daemon_is_started_again_by_start_and_by_nothing_else(tmp_path: Path) -> None:
    program = tmp_path / "pyswarmd"
    program.write_text("#!/bin/sh\nsleep 1000\n")
    program.chmod(0o755)
    lab = Lab.up(f"it-d-{os.getpid()}", 1, 0, init=False, daemon=["/bin/sh", str(program)], base=tmp_path / "labs")
    try:
        # Not its child, which has the same arguments until it becomes `sleep`.
        eventually(lambda: len(lab.processes("n1", "pyswarmd")) == 1)
        (first,) = lab.processes("n1", "pyswarmd")
        lab.kill("n1", "pyswarmd")
        assert not first.is_alive()
        eventually(lambda: lab.daemon_status("n1") == "ended by SIGKILL")
        assert lab.is_running("n1")
        with pytest.raises(LabError, match="runs no pyswarmd"):
            lab.kill("n1", "pyswarmd")
        with pytest.raises(LabError, match="runs no manager"):
            lab.kill("n1", "manager")
        lab.start("n1")
        eventually(lambda: len(lab.processes("n1", "pyswarmd")) == 1)
        eventually(lambda: lab.daemon_status("n1") == "running")
    finally:
        assert lab.down() == []


def test_orphans_of_a_host_are_reaped_by_its_first_process(lab: Lab) -> None:
    lab.exec("n1", ["sh", "-c", "(sleep 0 &)"], check=True)
    eventually(lambda: " Z" not in lab.exec("n1", ["ps", "-eo", "stat"]).stdout)


def test_two_labs_stand_side_by_side_with_the_same_addresses(lab: Lab, tmp_path: Path) -> None:
    other = Lab.up(f"it-o-{os.getpid()}", 1, 0, init=False, daemon=DAEMON, base=tmp_path / "labs")
    try:
        assert other.host("n1").address == lab.host("n1").address
        assert not reaches(other, "n1", lab.host("n3").address)
    finally:
        assert other.down() == []
    assert reaches(lab, "n1", lab.host("n2").address)


def test_up_over_a_running_lab_or_over_leftovers_says_what_to_do(lab: Lab) -> None:
    again = lambda: Lab.up(lab.name, 1, 0, init=False, daemon=DAEMON, base=lab.layout.base)  # noqa: E731
    with pytest.raises(LabError, match=f"up already.*pyswarm lab down --name {lab.name}"):
        again()
    for process in leftovers.first_processes(lab.layout):
        send_signal(process, signal.SIGKILL)
        wait_gone(process, 10)
    with pytest.raises(LabError, match=f"Clean up first: pyswarm lab down --name {lab.name}"):
        again()


def test_down_finds_the_processes_of_a_lab_whose_records_are_gone(lab: Lab) -> None:
    processes = leftovers.first_processes(lab.layout)
    for record in lab.hosts:
        lab.layout.host_record(record.name).unlink()
    lab.layout.switch_record.write_text("not json")
    assert lab.down() == []
    assert not any(process.is_alive() for process in processes)
    assert not lab.exists()


def test_down_removes_the_cgroups_of_the_lab_and_no_others(lab: Lab) -> None:
    roots = cgroups.hierarchies()
    made = [root / lab.layout.cgroup("n1") / "task" for root in roots]
    for group in made:
        group.mkdir(parents=True)
    assert lab.down() == []
    assert not any((root / lab.layout.cgroup()).exists() for root in roots)
    assert all(root.is_dir() for root in roots)


def test_a_lab_that_dies_while_it_starts_a_host_leaves_no_process(tmp_path: Path) -> None:
    """The first process goes away when its maker does, unless it was told to go on."""
    host_dir = tmp_path / "labs" / "dying" / "n1"
    host_dir.mkdir(parents=True)
    argv = [sys.executable, "-I", "-m", "pyswarm_lab.boot", "net,pid,mnt,uts"]
    argv += [sys.executable, "-I", "-m", "pyswarm_lab.host_init", str(host_dir), "n1"]
    argv += ["/var/lib/pyswarm", "/run/pyswarm", "/bin/true"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as boot:
        assert boot.stdout is not None
        assert boot.stdin is not None
        pid = int(boot.stdout.readline().removeprefix("pid "))
        assert boot.stdout.readline() == "mounted\n"
        process = reference(pid)
        assert process is not None
        boot.stdin.close()
        assert wait_gone(process, 10)


def test_a_failure_on_the_way_up_removes_what_was_made(tmp_path: Path) -> None:
    said: list[str] = []
    name = f"it-f-{os.getpid()}"
    with pytest.raises(LabError, match="not ready"):
        Lab.up(
            name,
            1,
            0,
            daemon=["/bin/sh", "-c", "echo no such kernel >&2; exit 3"],
            base=tmp_path / "labs",
            say=said.append,
        )
    assert not Lab(name, tmp_path / "labs").exists()
    assert any("no such kernel" in line for line in said)


def test_ctrl_c_on_the_way_up_removes_what_was_made(tmp_path: Path) -> None:
    name, base = f"it-c-{os.getpid()}", tmp_path / "labs"
    program = "import sys; from pathlib import Path; from pyswarm_lab import Lab; "
    program += "Lab.up(sys.argv[1], 1, 0, daemon=['/bin/sleep', '600'], base=Path(sys.argv[2]), say=print)"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", program, name, str(base)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as up:
        assert up.stdout is not None
        for line in up.stdout:
            if line.strip().endswith("up"):  # the host stands; now its daemon is waited for
                break
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=60)
    assert up.returncode != 0
    assert not Lab(name, base).exists()

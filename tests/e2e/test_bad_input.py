"""Bad input: a clear line, an exit code, and nothing half-made.

On a small lab of its own: n1 makes a swarm, n2 stays outside of it and tries things.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_cluster import PYSWARM, Cluster, eventually, lab_with_clean_end, one_line_of

from pyswarm_lab.image import write_rootfs

ADDRESS_1, ADDRESS_2, NOBODY = "192.168.77.11", "192.168.77.12", "192.168.77.200"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """n1 is a swarm of one with an image, a network and a service; n2 is in none."""
    archive = tmp_path_factory.mktemp("image") / "rootfs.tar"
    write_rootfs(archive)
    options = ("--managers", "1", "--workers", "1", "--no-init")
    for made in lab_with_clean_end(f"e2e-bad-{os.getpid()}", *options):
        made.run("n1", "init", "--advertise-addr", ADDRESS_1)
        made.run("n1", "image", "import", str(archive), "web:1")
        made.run("n1", "network", "create", "--subnet", "10.50.0.0/24", "net")
        made.run("n1", "service", "create", "-d", "--name", "idle", "--replicas", "0", "web:1")
        yield made


@pytest.fixture
def outsider(pair: Cluster) -> Iterator[Cluster]:
    """Whatever n2 tried, it must be as before."""
    yield pair
    assert pair.state_of("n2") == "inactive"
    state = pair.lab.layout.host_dir("n2") / "var"
    for folder in ("certificates", "manager"):
        kept = [path for path in (state / folder).rglob("*") if path.is_file()]
        assert kept == []
    assert not pair.lab.processes("n2", "manager")
    assert len(pair.nodes("n1")) == 1


@pytest.fixture
def unchanged(pair: Cluster) -> Iterator[Cluster]:
    """Whatever was refused on n1, its objects must be as before."""
    before = objects(pair)
    yield pair
    assert objects(pair) == before


def objects(cluster: Cluster) -> list[str]:
    """Everything the cluster keeps, with versions."""
    out = []
    for kind in ("service", "network"):
        names = cluster.run("n1", kind, "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}}").splitlines()
        out += [cluster.run("n1", kind, "inspect", name.split()[0]) for name in sorted(names)]
    return out


def token(cluster: Cluster, role: str = "worker") -> str:
    return cluster.run("n1", "join-token", "-q", role).strip()


# ---------------------------------------------------------------- joining


@pytest.mark.parametrize("bad", ["", "nonsense", "SWMTKN-1-abc", "SWMTKN-9-" + "0" * 50 + "-" + "0" * 25])
def test_a_token_that_is_none(outsider: Cluster, bad: str) -> None:
    line = outsider.refused("n2", "join", "--token", bad, "--advertise-addr", ADDRESS_2, ADDRESS_1)
    assert "token" in line


def test_a_token_with_the_wrong_secret(outsider: Cluster) -> None:
    head, _, secret = token(outsider).rpartition("-")
    line = outsider.refused("n2", "join", "--token", f"{head}-{secret[::-1]}", "--advertise-addr", ADDRESS_2, ADDRESS_1)
    assert "token" in line


def test_a_token_of_another_ca(outsider: Cluster) -> None:
    prefix, version, digest, secret = token(outsider).split("-")
    other = digest[:-4] + ("0000" if not digest.endswith("0000") else "1111")
    bad = "-".join((prefix, version, other, secret))
    line = outsider.refused("n2", "join", "--token", bad, "--advertise-addr", ADDRESS_2, ADDRESS_1)
    assert "fingerprint" in line or "digest" in line


def test_a_token_that_was_rotated_away(outsider: Cluster) -> None:
    old = token(outsider)
    assert "Successfully rotated worker join token." in outsider.run("n1", "join-token", "--rotate", "worker")
    assert token(outsider) != old
    line = outsider.refused("n2", "join", "--token", old, "--advertise-addr", ADDRESS_2, ADDRESS_1)
    assert "token" in line


def test_a_manager_that_cannot_be_reached(outsider: Cluster) -> None:
    line = outsider.refused("n2", "join", "--token", token(outsider), "--advertise-addr", ADDRESS_2, NOBODY)
    assert NOBODY in line


def test_a_port_that_is_taken(outsider: Cluster) -> None:
    listen = (
        "import os,socket,time; s=socket.create_server(('', 2377)); print(os.getpid(), flush=True); time.sleep(600)"
    )
    argv = outsider.lab.exec_argv("n2", [sys.executable, "-c", listen])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        pid = other.stdout.readline().strip()
        try:
            assert "2377" in outsider.refused("n2", "init", "--advertise-addr", ADDRESS_2)
        finally:
            outsider.on("n2", "kill", pid)


@pytest.mark.parametrize("address", ["10.99.0.1", "no-such-interface", "1.2.3", ADDRESS_1])
def test_an_address_that_is_not_this_machines(outsider: Cluster, address: str) -> None:
    outsider.refused("n2", "init", "--advertise-addr", address)


def test_a_second_init_and_a_second_join(unchanged: Cluster) -> None:
    assert "already part of a swarm" in unchanged.refused("n1", "init", "--advertise-addr", ADDRESS_1)
    again = unchanged.refused("n1", "join", "--token", token(unchanged), "--advertise-addr", ADDRESS_1, ADDRESS_2)
    assert "already part of a swarm" in again


def test_a_manager_does_not_leave_by_accident(unchanged: Cluster) -> None:
    assert "--force" in unchanged.refused("n1", "leave")


def test_what_needs_a_swarm_outside_of_one(outsider: Cluster) -> None:
    for argv in (["service", "ls"], ["node", "ls"], ["network", "ls"], ["join-token", "worker"]):
        assert "This node is not a swarm manager" in outsider.refused("n2", *argv)
    assert "not part of a swarm" in outsider.refused("n2", "leave")


# ---------------------------------------------------------------- objects


NOT_THERE = [
    ["service", "ps", "nope"],
    ["service", "inspect", "nope"],
    ["service", "rm", "nope"],
    ["service", "scale", "nope=3"],
    ["service", "update", "--force", "nope"],
    ["service", "rollback", "nope"],
    ["service", "logs", "nope"],
    ["node", "inspect", "nope"],
    ["node", "update", "--availability", "drain", "nope"],
    ["node", "rm", "nope"],
    ["node", "promote", "nope"],
    ["node", "ps", "nope"],
    ["network", "inspect", "nope"],
    ["network", "rm", "nope"],
    ["image", "rm", "nope"],
    ["image", "tag", "nope", "other"],
    ["service", "create", "-d", "--network", "nope", "web:1"],
    ["service", "update", "-d", "--network-add", "nope", "idle"],
    ["service", "update", "-d", "--network-rm", "nope", "idle"],
]


def test_what_does_not_exist_is_named(unchanged: Cluster) -> None:
    unnamed = {line for argv in NOT_THERE if "nope" not in (line := unchanged.refused("n1", *argv))}
    assert unnamed == set()


NOT_POSSIBLE: list[tuple[list[str], str]] = [
    (["service", "create", "-d", "--name", "idle", "web:1"], "idle"),
    (["network", "create", "net"], "net"),
    (["network", "create", "--subnet", "10.50.0.0/25", "other"], "10.50.0.0"),
    (["network", "create", "--subnet", "10.50.0.0/16", "other"], "10.50.0.0"),
    (["network", "create", "--subnet", "not-a-subnet", "other"], "not-a-subnet"),
    (["network", "create", "--driver", "carrier-pigeon", "other"], "carrier-pigeon"),
    (["service", "scale", "idle=-1"], "-1"),
    (["service", "scale", "idle=many"], "many"),
    (["service", "scale", "idle=99999999999"], "replicas"),
    (["service", "create", "-d", "--replicas", "99999999999", "web:1"], "replicas"),
    (["service", "create", "-d", "--replicas", "-1", "web:1"], "-1"),
    (["service", "create", "-d", "--name", "bad name!", "web:1"], "name"),
    (["service", "create", "-d", "WEB:1:2"], "WEB:1:2"),
    (["service", "create", "-d", "-p", "99999:80", "web:1"], "99999"),
    (["service", "create", "-d", "-p", "8080:80", "-p", "8080:81", "web:1"], "duplicate published ports"),
    (["service", "create", "-d", "--constraint", "node.colour", "web:1"], "node.colour"),
    (["service", "create", "-d", "--mount", "type=bind,source=x,target=/y", "web:1"], "source"),
    (["service", "create", "-d", "--limit-memory", "lots", "web:1"], "lots"),
    (["service", "create", "-d", "--restart-delay", "soon", "web:1"], "soon"),
    (["node", "demote", "n1"], "manager"),
    (["node", "rm", "n1"], "manager"),
]


def test_what_cannot_be_is_refused_by_name(unchanged: Cluster) -> None:
    unnamed = {line for argv, word in NOT_POSSIBLE if word not in (line := unchanged.refused("n1", *argv))}
    assert unnamed == set()


def test_a_published_port_is_taken_once(pair: Cluster) -> None:
    pair.run("n1", "service", "create", "-d", "--name", "first", "--replicas", "0", "-p", "8080:80", "web:1")
    try:
        line = pair.refused("n1", "service", "create", "-d", "--name", "second", "-p", "8080:80", "web:1")
        assert "8080" in line
        assert "first" in line
        assert "second" not in pair.run("n1", "service", "ls")
    finally:
        pair.run("n1", "service", "rm", "first")


def test_a_network_in_use_is_not_removed(pair: Cluster) -> None:
    pair.run("n1", "service", "create", "-d", "--name", "user", "--replicas", "0", "--network", "net", "web:1")
    try:
        assert "user" in pair.refused("n1", "network", "rm", "net")
    finally:
        pair.run("n1", "service", "rm", "user")


def test_an_image_that_no_node_has_is_named_by_the_task(pair: Cluster) -> None:
    pair.run("n1", "service", "create", "-d", "--name", "ghost", "no-such-image:1")
    try:
        eventually(lambda: "No such image" in pair.run("n1", "service", "ps", "ghost", "--no-trunc"), "the reason")
    finally:
        pair.run("n1", "service", "rm", "ghost")


def test_a_task_that_fits_nowhere_says_why(pair: Cluster) -> None:
    pair.run("n1", "service", "create", "-d", "--name", "huge", "--reserve-memory", "100t", "web:1")
    try:
        listing = ["service", "ps", "huge", "--no-trunc"]
        eventually(lambda: "no suitable node" in pair.run("n1", *listing), "the reason")
        assert "Pending" in pair.run("n1", *listing)
    finally:
        pair.run("n1", "service", "rm", "huge")


# ---------------------------------------------------------------- files and images


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"\x1f\x8b broken"])
def test_an_archive_that_is_none(pair: Cluster, tmp_path: Path, content: bytes) -> None:
    archive = tmp_path / "broken.tar"
    archive.write_bytes(content)
    before = pair.run("n2", "images", "--no-trunc")
    pair.refused("n2", "image", "import", str(archive), "broken:1")
    pair.refused("n2", "image", "load", "-i", str(archive))
    assert pair.run("n2", "images", "--no-trunc") == before


def test_a_file_that_is_not_there(pair: Cluster, tmp_path: Path) -> None:
    assert "nope.tar" in pair.refused("n2", "image", "load", "-i", str(tmp_path / "nope.tar"))


# ---------------------------------------------------------------- the machine


def test_a_host_without_what_containers_need(pair: Cluster, tmp_path: Path) -> None:
    """pyswarmd says what is missing, and does not start."""
    program = str(Path(sys.executable).parent / "pyswarmd")
    argv = [program, "--state-dir", str(tmp_path / "state"), "--run-dir", str(tmp_path / "run")]
    done = pair.on("n2", *argv, "--oci-runtime", "/no/such/runtime", timeout_s=60)
    assert done.returncode != 0
    assert "/no/such/runtime" in done.stderr
    assert "Traceback" not in done.stderr


def test_not_root(pair: Cluster, tmp_path: Path) -> None:
    """In a user namespace of its own a process may read what root may, but is not root."""
    program = str(Path(sys.executable).parent / "pyswarmd")
    argv = [program, "--state-dir", str(tmp_path / "state"), "--run-dir", str(tmp_path / "run")]
    done = pair.on("n2", "unshare", "--user", *argv, timeout_s=60)
    assert done.returncode != 0
    assert "root" in done.stderr
    assert "Traceback" not in done.stderr
    lab = subprocess.run(
        ["unshare", "--user", PYSWARM, "lab", "up", "--name", f"e2e-nr-{os.getpid()}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "root" in one_line_of(lab)


def test_no_daemon(pair: Cluster) -> None:
    done = pair.cli("-H", "unix:///run/no-such-daemon.sock", "service", "ls")
    assert one_line_of(done) == (
        "Cannot connect to the pyswarm daemon at unix:///run/no-such-daemon.sock. Is the pyswarm daemon running?"
    )


def test_the_state_directory_of_another_cluster(pair: Cluster) -> None:
    """n2 makes a swarm of its own, then finds n1's certificates in its place: it must not go on with them."""
    state = {host: pair.lab.layout.host_dir(host) / "var" for host in ("n1", "n2")}
    pair.run("n2", "init", "--advertise-addr", ADDRESS_2)
    pair.cli("lab", "kill", "--name", pair.name, "n2")
    own = {path.name: path.read_bytes() for path in (state["n2"] / "certificates").iterdir()}
    try:
        for path in (state["n1"] / "certificates").iterdir():
            (state["n2"] / "certificates" / path.name).write_bytes(path.read_bytes())
        pair.cli("lab", "start", "--name", pair.name, "n2")
        ended = eventually(lambda: has_ended(pair, "n2"), "the end of the daemon")
        assert ended == "ended with exit code 1"
        line = pair.lab.log("n2").splitlines()[-1]
        assert line.startswith("pyswarmd: ")
        assert "another cluster" in line
        assert not pair.lab.processes("n2", "manager")
        assert "Traceback" not in pair.lab.log("n2")
        assert list(pair.nodes("n1")) == ["n1"]
    finally:
        pair.cli("lab", "kill", "--name", pair.name, "n2")
        for name, content in own.items():
            (state["n2"] / "certificates" / name).write_bytes(content)
        pair.cli("lab", "start", "--name", pair.name, "n2")
    eventually(lambda: pair.nodes("n2"), "n2 leads its own swarm again")
    pair.run("n2", "leave", "--force")
    assert pair.state_of("n2") == "inactive"


def has_ended(cluster: Cluster, host: str) -> str:
    """How the host's daemon ended; empty while it runs."""
    status = cluster.lab.daemon_status(host)
    return status if status.startswith("ended") else ""


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["service", "create", "--no-such-flag", "x"], 125),
        (["service", "create", "--replicas", "x", "img"], 125),
        (["service", "create"], 1),
        (["no-such-command"], 1),
        (["service", "ls", "surplus"], 1),
        (["service", "ls", "--format", "{{.Nope}}"], 1),
        (["service", "ls", "--format", "{{"], 1),
        (["service", "ls", "--filter", "colour=red"], 1),
        (["service", "scale", "idle"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_wrong_command_line_has_docker_s_exit_code(pair: Cluster, argv: list[str], code: int) -> None:
    done = pair.on("n1", "pyswarm", *argv)
    one_line_of(done)
    assert done.returncode == code


def test_a_lab_over_a_lab_and_a_lab_that_is_none(pair: Cluster) -> None:
    assert f"pyswarm lab down --name {pair.name}" in one_line_of(pair.cli("lab", "up", "--name", pair.name))
    assert "No such lab" in one_line_of(pair.cli("lab", "kill", "--name", "no-such-lab", "n1"))
    assert "No such host" in one_line_of(pair.cli("lab", "cut", "--name", pair.name, "n9"))
    assert "cannot be the name" in one_line_of(pair.cli("lab", "up", "--name", "../etc"))

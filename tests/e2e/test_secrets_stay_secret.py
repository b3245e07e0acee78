"""Secrets are where they are meant to be and nowhere else: disks, logs, processes, answers and the wire are searched.

One story is played in a lab of three managers and a worker: every command that handles a secret, with right and wrong
ones. Then everything is searched for all secrets in all forms, and for markers that must be found where they are.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e_cluster import IMAGE, eventually
from secret_search import Search, of_bytes, of_private_key, of_text
from secret_story import ProcessWatch, Story, regular_files
from wire_capture import TLS_1_3, Capture, Wire, begins_with_client_hello, is_only_alert, tls_version

import pyswarm_lab.lab as lab_module
from pyswarm_common.backup.keys import format_key, parse_key
from pyswarm_common.identity import generate_key, key_to_pem
from pyswarm_common.identity.locks import WRONG_KEY, LockKey, WrongKey
from pyswarm_common.identity.tokens import JoinToken
from pyswarm_lab import records
from pyswarm_lab.cluster import nodes, wait_daemons, wait_ready
from pyswarm_lab.image import CHANGES, write_rootfs
from pyswarm_lab.lab import Lab
from pyswarm_lab.records import SwitchRecord

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

MANAGERS, WORKER = ("n1", "n2", "n3"), "n4"
SERVICE_SECRET = "service's secret"
HOSTS = (*MANAGERS, WORKER)
TLS_PORTS = {2377, 2378, 7946}
CONTROL_PORT = 9
MARKER = JoinToken("d" * 50, secrets.token_hex(12) + "z").secret
"""Is no secret: it stands in a service's environment, and must be found where that is shown."""
WIRE_MARKER = secrets.token_hex(16)
"""Is sent in the clear, in two pieces."""


@dataclass(slots=True)
class Evidence:
    """What is left when the story has been told."""

    story: Story
    processes: set[bytes]
    wire: Wire
    events: str
    locked: dict[tuple[str, str], set[str]]
    opened: dict[tuple[str, str], set[str]]
    logs: dict[str, str]
    mistaken: set[str]
    """Secrets that were typed as arguments."""

    @property
    def search(self) -> Search:
        return Search(self.story.secrets.values())


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    """The whole story, from init to the last command."""
    folder = tmp_path_factory.mktemp("kept")
    lab = talkative_lab(f"secret-{uuid.uuid4().hex[:6]}")
    try:
        wait_daemons(lab)
        switch = records.load(lab.layout.switch_record, SwitchRecord)
        assert switch is not None
        capture = Capture(switch.holder.pid, folder / "frames")
        try:
            yield told(Story(lab), folder, capture)
        finally:
            capture.abandon()
    finally:
        assert lab.down() == []


def talkative_lab(name: str) -> Lab:
    """A lab whose daemons log at the level debug."""
    usual = lab_module.default_daemon
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab_module, "default_daemon", lambda cgroup: (*usual(cgroup), "--log-level", "debug"))
        return Lab.up(name, managers=len(MANAGERS), workers=1, init=False)


def told(story: Story, folder: Path, capture: Capture) -> Evidence:
    with ProcessWatch(story.lab) as watch:
        unlock_key = form(story, folder)
        with events_into(story, folder / "events"):
            run_service(story, folder)
            unlock_key = replace_keys(story, unlock_key)
            use_people(story, folder)
            backup_key = make_backups(story, folder)
            replace_root(story, folder, backup_key)
            restart_locked(story, unlock_key)
            mistaken = make_mistakes(story)
            look_at_everything(story)
        keep_all_keys(story, unlock_key)
        locked = story.search_disks()
        story.run("n2", "update", "--autolock=false")
        eventually(lambda: not any(lock_of(story, host).exists() for host in MANAGERS), "the keys are open")
        opened = story.search_disks()
        watch.look()
    speak_openly(story)
    logs = {host: story.lab.log(host) for host in HOSTS}
    events = (folder / "events").read_text()
    return Evidence(story, watch.seen, capture.stop(), events, locked, opened, logs, mistaken)


# ---------------------------------------------------------------- the story


def lock_of(story: Story, host: str) -> Path:
    return story.state(host) / "certificates/node.lock"


def is_locked_with(story: Story, key: LockKey) -> Callable[[], bool]:
    """Whether every manager's disk is locked with this key."""

    def check() -> bool:
        try:
            return all(key.unlock(lock_of(story, host).read_bytes(), "node.lock") for host in MANAGERS)
        except (FileNotFoundError, WrongKey):
            return False

    return check


def form(story: Story, folder: Path) -> LockKey:
    """init with autolock, and joining with wrong and with right tokens."""
    lab, first = story.lab, story.lab.host("n1").address
    argv = ("init", "--autolock", "--advertise-addr", first)
    made = story.run("n1", *argv, shows=("worker token", "unlock key", "unlock key (text)")).split()
    unlock_key = story.keep_unlock_key("unlock key", next(word for word in made if word.startswith("SWMKEY-1-")))
    worker = story.keep_token("worker token", next(word for word in made if word.startswith("SWMTKN-1-")))
    manager = story.run("n1", "join-token", "-q", "manager", shows=("manager token",))
    (folder / "manager").write_text(story.keep_token("manager token", manager))
    story.run("n1", "join-token", "worker", shows=("worker token",))
    wrong = str(JoinToken(JoinToken.parse(worker).digest, "1" + secrets.token_hex(12)))
    (folder / "wrong").write_text(story.keep_token("wrong token", wrong))
    assert "invalid join token" in story.refused("n2", "join", "--token-file", str(folder / "wrong"), first)
    for host in ("n2", "n3"):
        story.run(host, "join", "--token-file", str(folder / "manager"), first)
    limits = ("--role", "worker", "--uses", "1", "--expires", "1h")
    limited = story.run("n2", "join-token", "create", "-q", *limits, shows=("limited token",))
    (folder / "limited").write_text(story.keep_token("limited token", limited))
    story.run(WORKER, "join", "--token-file", str(folder / "limited"), first)
    wait_ready(lab, len(HOSTS), "n1")
    eventually(is_locked_with(story, unlock_key), "the managers' disks are locked")
    return unlock_key


@contextlib.contextmanager
def events_into(story: Story, path: Path) -> Iterator[None]:
    """`pyswarm events` all the while. Without the host's pid namespace, so that it is our own child, and ends."""
    argv = [word for word in story.lab.exec_argv("n3", ["pyswarm", "events", "--format", "json"]) if word != "-p"]
    with path.open("wb") as file, subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file) as watcher:
        try:
            yield
        finally:
            watcher.terminate()


def run_service(story: Story, folder: Path) -> None:
    """With a secret in a file and the marker in its environment; its image, its state and its logs go over the wire."""
    write_rootfs(folder / "rootfs.tar")
    changes = [part for change in CHANGES for part in ("--change", change)]
    story.run("n1", "image", "import", *changes, str(folder / "rootfs.tar"), IMAGE)
    old, password = (f"{secrets.token_hex(12)}-{word}" for word in ("old", "new"))
    story.keep(of_text("service's secret before", old), of_text(SERVICE_SECRET, password))
    story.run("n3", "secret", "create", "db", "-", stdin=old)
    argv = ("--secret", "source=db,mode=0400", "--env", f"HELD={MARKER}", "--mode", "global", IMAGE)
    story.run("n2", "service", "create", "-d", "--name", "web", "--update-monitor", "0s", *argv)

    def states() -> list[str]:
        argv = ["service", "ps", "web", "--filter", "desired-state=running", "--format", "{{.CurrentState}}"]
        done = story.lab.exec("n1", ["pyswarm", *argv])
        return [line.split()[0] for line in done.stdout.splitlines()]

    eventually(lambda: states() == ["Running"] * len(HOSTS), "it runs everywhere")
    story.run("n1", "secret", "update", "db", "-", stdin=password)

    def is_updated() -> bool:
        argv = ["pyswarm", "service", "inspect", "web", "--format", "{{.UpdateStatus.State}}"]
        return story.lab.exec("n1", argv).stdout == "completed\n"

    eventually(is_updated, "its tasks have the new secret")
    argv = ("service", "exec", "web", "cat", "/run/secrets/db")
    assert story.run("n2", *argv, shows=(SERVICE_SECRET,)) == password
    story.run("n1", "service", "logs", "web")


def replace_keys(story: Story, unlock_key: LockKey) -> LockKey:
    """The data keys, the unlock key and the manager token are replaced; the old ones are secrets still."""
    for host in MANAGERS:
        story.keep_managers_keys(host, unlock_key)
    story.run("n2", "operator", "rotate-encryption-key")
    story.run("n3", "unlock-key", shows=("unlock key", "unlock key (text)"))
    token = story.run("n3", "unlock-key", "-q", "--rotate", shows=("unlock key 2", "unlock key 2 (text)"))
    fresh = story.keep_unlock_key("unlock key 2", token)
    eventually(is_locked_with(story, fresh), "the managers' disks are locked with the new key")
    rotated = story.run("n1", "join-token", "-q", "--rotate", "manager", shows=("manager token 2",))
    story.keep_token("manager token 2", rotated)
    return fresh


def use_people(story: Story, folder: Path) -> None:
    """A viewer's token and certificate, and what they are answered."""
    token = story.run("n1", "token", "create", "--role", "viewer", "--name", "ci", shows=("API token",))
    (folder / "token").write_text(story.keep_token("API token", token))
    story.run("n1", "client-cert", "create", "--role", "viewer", "--name", "eve", "-o", str(folder / "eve"))
    argv = ("--ca", str(folder / "eve/ca.pem"), "--token-file", str(folder / "token"), "-o", str(folder / "hour"), "n2")
    story.run(WORKER, "token", "exchange", *argv[:-1], story.lab.host("n2").address)
    for name in ("eve", "hour"):
        story.keep(of_private_key(f"key of {name}", (folder / name / "key.pem").read_bytes()))
    wrong = f"PSWT-1-{token.split('-')[2]}-{secrets.token_hex(12)}z"
    (folder / "wrong-token").write_text(story.keep_token("wrong API token", wrong))
    token = story.run("n3", "token", "create", "--role", "admin", "--name", "boss", shows=("admin's API token",))
    (folder / "admins-token").write_text(story.keep_token("admin's API token", token))
    assert '"joinTokens"' not in get_cluster(story, folder, "token")
    assert '"joinTokens"' in get_cluster(story, folder, "admins-token", "worker token", "manager token 2")
    assert '"unauthenticated"' in get_cluster(story, folder, "wrong-token")
    as_eve = ("-H", f"tcp://{story.lab.host('n1').address}:2377", "--tls-dir", str(folder / "eve"))
    assert "only an admin" in story.refused(WORKER, *as_eve, "join-token", "worker")
    for command in ("unlock-key", "backup key", "token ls"):
        assert "a viewer may not call" in story.refused(WORKER, *as_eve, *command.split())
    story.run(WORKER, *as_eve, "swarm", "inspect")


def get_cluster(story: Story, folder: Path, token: str, *shows: str) -> str:
    """The answer to GetCluster over HTTPS, as it came."""
    (folder / "header").write_text(f"Authorization: Bearer {(folder / token).read_text()}\n")
    argv = ["curl", "-sS", "--cacert", str(folder / "eve/ca.pem"), "-H", f"@{folder / 'header'}"]
    argv += ["--connect-to", f"swarm-manager:2378:{story.lab.host('n2').address}:2378"]
    argv += ["-H", "Content-Type: application/json", "-d", "{}"]
    return story.command(WORKER, *argv, "https://swarm-manager:2378/pyswarm.v1.Control/GetCluster", shows=shows)


def make_backups(story: Story, folder: Path) -> str:
    """With the first backup key, the second and a passphrase; opened with right and wrong ones. The second key."""
    old = story.run("n1", "backup", "key", "-q", shows=("backup key", "backup key (text)")).strip()
    story.run("n1", "backup", str(folder / "first"))
    new = story.run("n2", "backup", "key", "-q", "--rotate", shows=("backup key 2", "backup key 2 (text)")).strip()
    wrong, passphrase = format_key(secrets.token_bytes(32)), f"correct horse {secrets.token_hex(8)}"
    for name, key in (("backup key", old), ("backup key 2", new), ("wrong backup key", wrong)):
        story.keep(of_bytes(name, parse_key(key)), of_text(f"{name} (text)", key.removeprefix("SWMBAK-1-")))
        (folder / name).write_text(key)
    story.keep(of_text("passphrase", passphrase))
    (folder / "passphrase").write_text(passphrase)
    story.run("n3", "backup", "--passphrase-file", str(folder / "passphrase"), str(folder / "sealed"))
    for file, key in (("first", "backup key"), ("sealed", "passphrase")):
        story.run("n1", "backup", "inspect", "--key-file", str(folder / key), str(folder / file))
    for command in (("backup", "inspect"), ("restore", "--yes")):
        for key in ("wrong backup key", "backup key 2"):
            said = story.refused("n1", *command, "--key-file", str(folder / key), str(folder / "first"))
            assert "this is not the key of the backup" in said
    story.refused("n1", "restore", "--yes", "--key-file", str(folder / "wrong backup key"), str(folder / "sealed"))
    story.keep_backups_contents("first", folder / "first", old)
    return new


def replace_root(story: Story, folder: Path, backup_key: str) -> None:
    story.keep_node_key(WORKER)
    story.run("n3", "ca", "--rotate")
    for role in ("worker", "manager"):
        name = f"{role} token of the new root"
        story.keep_token(name, story.run("n2", "join-token", "-q", role, shows=(name,)))
    story.run("n2", "backup", str(folder / "second"))
    cluster = story.keep_backups_contents("second", folder / "second", backup_key)
    assert story.secrets["first root key"].forms != story.secrets["second root key"].forms
    story.keep_token("worker token of the new root", cluster.join_tokens.worker)


def restart_locked(story: Story, unlock_key: LockKey) -> None:
    """A manager that waits for its key, and is given wrong ones first."""
    story.lab.kill("n2", "pyswarmd")
    eventually(lambda: not story.lab.processes("n2", "pyswarmd"), "pyswarmd has ended")
    story.lab.start("n2")
    eventually(lambda: "locked" in story.lab.exec("n2", ["pyswarm", "info"]).stdout, "it is locked")
    wrong = LockKey.generate()
    story.keep_unlock_key("wrong unlock key", wrong.token())
    assert WRONG_KEY in story.refused("n2", "unlock", stdin=wrong.token())
    story.refused("n2", "unlock-key")
    story.run("n2", "unlock", stdin=f"{unlock_key.token()}\n")

    def is_back() -> bool:
        return story.lab.exec("n2", ["pyswarm", "node", "ls"]).returncode == 0

    eventually(is_back, "its manager works")


def make_mistakes(story: Story) -> set[str]:
    """Secrets in the place of names and addresses: no refusal and no log quotes them. Command lines do, of course."""
    address = story.lab.host("n1").address
    api = f"PSWT-1-{'a' * 25}-{secrets.token_hex(12)}z"
    join = f"SWMTKN-1-{'d' * 50}-{secrets.token_hex(12)}z"
    key = LockKey.generate().token()
    story.keep_token("mistaken API token", api)
    story.keep_token("mistaken join token", join)
    story.keep_unlock_key("mistaken unlock key", key)
    for argv in (
        ("token", "rm", api),
        ("join-token", "rm", join),
        ("join", "--token", address, join),
        ("join", "--token", join, address),
        ("unlock", key),
        ("node", "inspect", join),
        ("service", "inspect", key),
        ("network", "create", join),
    ):
        story.refused("n3", *argv)
    return {"mistaken API token", "mistaken join token", "mistaken unlock key", "mistaken unlock key (text)"}


def look_at_everything(story: Story) -> None:
    for argv in (
        ("info",),
        ("ca",),
        ("swarm", "inspect"),
        ("node", "ls"),
        ("node", "inspect", *HOSTS),
        ("service", "inspect", "web"),
        ("service", "history", "web"),
        ("service", "diff", "web", "1", "2"),
        ("secret", "inspect", "db"),
        ("secret", "ls", "-a", "--format", "json"),
        ("service", "ps", "web"),
        ("network", "inspect", "ingress"),
        ("events", "--audit"),
        ("events", "--audit", "--format", "json"),
        ("join-token", "ls", "--format", "json"),
        ("token", "ls", "--format", "json"),
        ("client-cert", "ls", "--format", "json"),
        ("backup", "ls", "--format", "json"),
        ("operator", "store", "inspect"),
        ("operator", "store", "inspect", "--objects", "cluster", "--format", "json"),
        ("operator", "raft", "state"),
        ("operator", "raft", "list-peers"),
        ("operator", "check"),
    ):
        story.run("n2", *argv)


def keep_all_keys(story: Story, unlock_key: LockKey) -> None:
    for host in MANAGERS:
        story.keep_managers_keys(host, unlock_key)
    story.keep_node_key(WORKER)


LISTEN = """
import socket, sys
server = socket.create_server(("", int(sys.argv[1])))
print("listens", flush=True)
connection, _ = server.accept()
while connection.recv(100): pass
"""
SPEAK = """
import socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    text = sys.stdin.read().encode()
    for piece in (text[:10], text[10:]):
        connection.sendall(piece)
"""


def speak_openly(story: Story) -> None:
    """One machine tells another the marker in the clear: what the capture must find."""
    argv = [sys.executable, "-c", LISTEN, str(CONTROL_PORT)]
    with subprocess.Popen(story.lab.exec_argv("n3", argv), stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "listens\n"
        argv = [sys.executable, "-c", SPEAK, story.lab.host("n3").address, str(CONTROL_PORT)]
        done = story.lab.exec(WORKER, argv, stdin=WIRE_MARKER)
        assert done.returncode == 0, done.stderr
        assert listener.wait(timeout=30) == 0


# ---------------------------------------------------------------- the search


@pytest.mark.parametrize("before", range(9))
def test_the_search_finds_what_is_hidden_in_something_longer(before: int) -> None:
    key, token, pem = secrets.token_bytes(32), f"{secrets.token_hex(12)}z", key_to_pem(generate_key())
    search = Search([of_bytes("key", key), of_text("token", token), of_private_key("pem", pem)])
    number = int.from_bytes(key, "big")
    text = token.encode()
    shown = {
        "key": (key, key.hex().encode(), str(number).encode(), b"%x" % (number | 1 << 256), base64.b32encode(key)),
        "token": (text, text.hex().encode(), int(token, 36).to_bytes(17, "big")),
        "pem": (pem, pem.splitlines()[1], pem.splitlines()[2]),
    }
    for name, forms in shown.items():
        for form in forms:
            assert search.names(secrets.token_bytes(before) + form + secrets.token_bytes(50)) == {name}, (name, form)
            encoded = base64.b64encode(bytes(before) + {"key": key, "token": text, "pem": pem}[name] + b"after")
            assert search.names(encoded) == {name}
            assert search.names(encoded.translate(bytes.maketrans(b"+/", b"-_"))) == {name}
    almost = key[:-1] + bytes([key[-1] ^ 1]) + text[1:] + pem.splitlines()[3]
    assert search.names(secrets.token_bytes(before) + almost) == set()


def test_commands_show_only_what_they_are_for(evidence: Evidence) -> None:
    search = evidence.search
    for said in evidence.story.said:
        assert search.names(said.text.encode()) == said.shows, said.command
        assert "Traceback" not in said.text, said.command
        assert "PRIVATE KEY" not in said.text, said.command
    assert search.names(evidence.events.encode()) == set()
    # The marker is where it is shown, so what is not found is not there.
    shown = [said.command for said in evidence.story.said if Search([of_text("", MARKER)]).names(said.text.encode())]
    assert shown == ["n2$ pyswarm service inspect web"]
    assert json.loads(evidence.events.splitlines()[0])


def test_disks_hold_secrets_only_where_they_belong(evidence: Evidence) -> None:
    newest = {host: newest_key(evidence.story, host) for host in HOSTS}
    workers_own = {(WORKER, "var/certificates/node.key"): {newest[WORKER]}}
    assert on_disk(evidence.locked) == workers_own, "with autolock nothing else is in the clear"
    opened = on_disk(evidence.opened)
    for host in MANAGERS:
        assert opened.pop((host, "var/certificates/node.key")) == {newest[host]}
        assert opened.pop((host, "var/manager/raft-keys")) >= {newest_data_key(evidence.story, host)}
    assert opened == workers_own


def on_disk(found: dict[tuple[str, str], set[str]]) -> dict[tuple[str, str], set[str]]:
    """Without what containers are given: that is in memory, in one place."""
    given = {place: names for place, names in found.items() if place[1].startswith("run/pyswarm/agent/task-files/")}
    assert {host for host, _ in given} == set(HOSTS)
    assert all(names == {SERVICE_SECRET} for names in given.values()), given
    return {place: names for place, names in found.items() if place not in given}


def newest_key(story: Story, host: str) -> str:
    return [name for name in story.secrets if name.startswith(f"key of node {host} ")][-1]


def newest_data_key(story: Story, host: str) -> str:
    return [name for name in story.secrets if name.startswith("data key ") and name.endswith(host)][-1]


def test_logs_hold_none(evidence: Evidence) -> None:
    for host, log in evidence.logs.items():
        assert " DEBUG " in log, f"{host} does not say all that it could"
        assert evidence.search.names(log.encode()) == set(), host
        for word in ("Traceback", "PRIVATE KEY", "SWMKEY-1-", "SWMBAK-1-"):
            assert word not in log, host
    assert any("tried to join with a wrong token" in log for log in evidence.logs.values()), "they tell what happened"


def test_no_process_has_one_in_its_arguments_or_environment(evidence: Evidence) -> None:
    found = evidence.search.names(b"\n".join(sorted(evidence.processes)))
    assert found <= evidence.mistaken
    marker = Search([of_text("marker", MARKER)])
    environments = [seen for seen in evidence.processes if seen.startswith(b"HELD=") or b"\0HELD=" in seen]
    assert environments, "the containers' processes were seen"
    assert all(marker.names(seen) for seen in environments)


def test_the_wire_shows_none_and_is_tls_1_3(evidence: Evidence) -> None:
    search = Search([*evidence.story.secrets.values(), of_text("marker", MARKER), of_text("wire", WIRE_MARKER)])
    assert search.names(evidence.wire.raw) == set()
    assert search.names(evidence.wire.streams()) == {"wire"}, "what was said openly is found once it is put together"
    seen = set()
    for client, server, asked, answered in evidence.wire.connections():
        if server.port == CONTROL_PORT or not answered:
            continue
        assert server.port in TLS_PORTS, (client, server)
        assert begins_with_client_hello(asked), (client, server, asked[:16])
        if not is_only_alert(answered):
            assert tls_version(answered) == TLS_1_3, (client, server)
            seen.add(server.port)
    assert seen == TLS_PORTS


def test_no_core_was_dumped(evidence: Evidence) -> None:
    lab = evidence.story.lab
    names = {path.name for host in HOSTS for path in regular_files(lab.layout.host_dir(host))}
    assert "raft.db" in names
    assert not {name for name in names if name == "core" or name.startswith("core.")}
    assert len(nodes(lab, "n1")) == len(HOSTS)

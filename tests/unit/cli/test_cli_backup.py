"""`pyswarm backup` and `pyswarm restore` against a fake daemon: files that are whole or not there, and who is asked."""

from __future__ import annotations

import json
import socket
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from cli_runner import Done, Run, run_cli

from pyswarm.v1 import backup_pb2, backup_pb2_grpc, health_pb2, health_pb2_grpc, node_pb2, node_pb2_grpc
from pyswarm_cli.backup.old_managers import answers_elsewhere
from pyswarm_cli.main import cli
from pyswarm_common.backup.container import SALT_BYTES, Header, KnownManager, Reader, Summary, write
from pyswarm_common.backup.keys import PassphraseParams, format_key, key_id

KEY = b"k" * 32
CLUSTER_ID = "c" * 25
PASSPHRASE = "correct horse battery"


def backup(key: bytes = KEY, **fields: Any) -> bytes:
    header = Header(
        **{
            "cluster_id": CLUSTER_ID,
            "index": 42,
            "term": 3,
            "created_at": time.time() - 3600,
            "salt": b"s" * SALT_BYTES,
            "key_id": key_id(key),
            "counts": {"cluster": 1, "node": 3, "service": 1},
            "made_by": "n1",
            **fields,
        }
    )
    managers = (KnownManager("node1", "n1", "192.0.2.1:2377", 7),)
    return b"".join(write(header, Summary(managers, ("web",)), key, [b"piece"] * 5))


class FakeDaemon(backup_pb2_grpc.BackupServicer, node_pb2_grpc.DaemonServicer, health_pb2_grpc.HealthServicer):
    """Sends what the test wants sent."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix://{folder}/b.sock"
        self.content = backup()
        self.breaks = False
        self.requests: list[backup_pb2.CreateBackupRequest] = []
        self.member_of = ""
        self.leader = 0
        self.restored: list[node_pb2.RestoreRequest] = []
        self.plan = node_pb2.ForceNewClusterPlan(
            cluster_id=CLUSTER_ID, node_id="node1", services=2, commit_index=9, last_index=11
        )
        self.forced = 0
        self.list = backup_pb2.ListBackupsResponse(interval_s=3600, kept=5, directory="/var/lib/pyswarm/backups")
        self._server = grpc.server(ThreadPoolExecutor(4))
        backup_pb2_grpc.add_BackupServicer_to_server(self, self._server)
        node_pb2_grpc.add_DaemonServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{folder}/b.sock")
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()

    def CreateBackup(self, request: Any, context: Any) -> Iterator[Any]:
        self.requests.append(request)
        first = {"cluster_id": CLUSTER_ID, "index": 42, "key_id": key_id(KEY)}
        for at in range(0, len(self.content), 100):
            data = self.content[at : at + 100]
            yield backup_pb2.CreateBackupResponse(data=data, objects=5, objects_done=at // 100, **first)
            if self.breaks and at:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the manager is stopping")

    def ListBackups(self, request: Any, context: Any) -> Any:
        return self.list

    def GetBackupKey(self, request: Any, context: Any) -> Any:
        return backup_pb2.GetBackupKeyResponse(key=format_key(KEY), key_id=key_id(KEY))

    def GetInfo(self, request: Any, context: Any) -> Any:
        return node_pb2.GetInfoResponse(cluster_id=self.member_of)

    def GetHealth(self, request: Any, context: Any) -> Any:
        return health_pb2.GetHealthResponse(leader_raft_id=self.leader)

    def Restore(self, request_iterator: Any, context: Any) -> Any:
        self.restored = list(request_iterator)
        return node_pb2.RestoreResponse(node_id="new", cluster_id=CLUSTER_ID, manager_address="192.0.2.9:2377")

    def PlanForceNewCluster(self, request: Any, context: Any) -> Any:
        return self.plan

    def ForceNewCluster(self, request: Any, context: Any) -> Any:
        self.forced += 1
        return self.plan


@pytest.fixture(autouse=True)
def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backups' managers are nowhere; nobody is asked."""
    monkeypatch.setattr("pyswarm_cli.commands.restore.answers_elsewhere", lambda address: False)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    made = FakeDaemon(tmp_path)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    made = tmp_path / "here"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def run(daemon: FakeDaemon, capfd: pytest.CaptureFixture[str]) -> Run:
    def invoke(*argv: str) -> Done:
        return run_cli(capfd, "-H", daemon.address, *argv)

    return invoke


def put(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return name


@pytest.fixture
def key_file(folder: Path) -> str:
    return put(folder, "key", f"{format_key(KEY)}\n".encode())


def test_a_backup_is_written_whole_for_its_owner_only(daemon: FakeDaemon, run: Run, folder: Path) -> None:
    done = run("backup", "mine")
    assert done.code == 0, done.err
    assert (folder / "mine").read_bytes() == daemon.content
    assert stat.S_IMODE((folder / "mine").stat().st_mode) == 0o600
    assert f"swarm {CLUSTER_ID} at index 42: 5 objects" in done.out
    assert "pyswarm backup key" in done.err
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_without_a_name_it_gets_one(run: Run, folder: Path) -> None:
    done = run("backup", "-q")
    (made,) = folder.iterdir()
    assert done.out == f"{made.name}\n"
    assert made.name.startswith(f"pyswarm-backup-{CLUSTER_ID}-")
    assert made.suffix == ".pyswarm-backup"


def test_nothing_is_ever_overwritten_and_the_manager_is_not_even_asked(
    daemon: FakeDaemon, run: Run, folder: Path
) -> None:
    put(folder, "mine", b"precious")
    done = run("backup", "mine")
    assert (done.code, done.err) == (1, "mine exists already: choose another name, or remove it\n")
    assert (folder / "mine").read_bytes() == b"precious"
    assert not daemon.requests


@pytest.mark.parametrize("name", ["", "mine"])
def test_a_stream_that_breaks_leaves_nothing(daemon: FakeDaemon, run: Run, folder: Path, name: str) -> None:
    daemon.breaks = True
    done = run("backup", *([name] if name else []))
    assert (done.code, done.err) == (1, "Error response from daemon: the manager is stopping\n")
    assert not list(folder.iterdir())


def test_a_place_where_nothing_can_be_written_is_named(run: Run, folder: Path) -> None:
    done = run("backup", "nowhere/mine")
    assert (done.code, done.err) == (1, "cannot write nowhere/mine: No such file or directory\n")


def test_what_arrives_damaged_is_not_kept(daemon: FakeDaemon, run: Run, folder: Path) -> None:
    daemon.content = daemon.content[:-1]
    done = run("backup", "mine")
    assert done.code == 1
    assert "damaged" in done.err
    assert not list(folder.iterdir())


def test_a_backup_goes_to_standard_output_and_words_do_not(
    daemon: FakeDaemon, folder: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    cli.main(["-H", daemon.address, "backup", "-"], prog_name="pyswarm", standalone_mode=False)
    out, err = capfdbinary.readouterr()
    assert out == daemon.content
    assert b"to standard output" in err


def test_a_passphrase_stays_here_and_only_what_follows_from_it_is_sent(
    daemon: FakeDaemon, run: Run, folder: Path
) -> None:
    put(folder, "secret", f"{PASSPHRASE}\nnot this line\n".encode())
    done = run("backup", "--passphrase-file", "secret", "mine")
    assert done.code == 0, done.err
    (request,) = daemon.requests
    assert len(request.passphrase.key) == 32
    assert PASSPHRASE.encode() not in request.SerializeToString()


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "holds no key"), (b"short\n", "between 8 and"), (b"\xff\xfe\xff", "holds no key")]
)
def test_a_passphrase_file_without_one_is_refused(run: Run, folder: Path, content: bytes, words: str) -> None:
    put(folder, "secret", content)
    done = run("backup", "--passphrase-file", "secret", "mine")
    assert done.code == 1
    assert words in done.err
    assert done.err.count("\n") == 1


def test_inspect_says_what_is_known_without_the_key_and_more_with_it(run: Run, folder: Path, key_file: str) -> None:
    put(folder, "mine", backup())
    told = run("backup", "inspect", "mine")
    assert "3 nodes, 1 service" in told.out
    assert "sealed" in told.out
    assert "192.0.2.1" not in told.out
    told = run("backup", "inspect", "--key-file", key_file, "mine")
    assert "verified with the key" in told.out
    assert "n1 192.0.2.1:2377" in told.out
    facts = json.loads(run("backup", "inspect", "--format", "json", "mine").out)
    assert (facts["SwarmID"], facts["Index"], facts["ChecksumVerified"], facts["ContentsVerified"]) == (
        CLUSTER_ID,
        42,
        True,
        False,
    )


def test_inspect_has_one_line_for_everything_that_can_be_wrong(run: Run, folder: Path, key_file: str) -> None:
    cases = {
        "cut": (backup()[:-10], "ends too early"),
        "empty": (b"", "no backup of pyswarm"),
        "other": (b"\x1f\x8b" + bytes(100), "no backup of pyswarm"),
        "newer": (backup(format=9), "has format 9"),
        "foreign": (backup(b"o" * 32), "not the key"),
    }
    for name, (content, words) in cases.items():
        put(folder, name, content)
        done = run("backup", "inspect", "--key-file", key_file, name)
        assert (done.code, done.err.count("\n")) == (1, 1), done.err
        assert words in done.err
    missing = run("backup", "inspect", "nowhere")
    assert (missing.code, missing.err) == (1, "No such file or directory: nowhere\n")


def test_a_header_cannot_steer_the_terminal(run: Run, folder: Path) -> None:
    put(folder, "mine", backup(made_by="\x1b[31mred", cluster_name="a\nb"))
    out = run("backup", "inspect", "mine").out
    assert "\x1b" not in out
    assert "(a b)" in out


def test_automatic_backups_are_listed_with_what_went_wrong(daemon: FakeDaemon, run: Run) -> None:
    kept = daemon.list.backups.add(path="/b/auto-1", cluster_id=CLUSTER_ID, index=7, size_bytes=1500, key_id="ab")
    kept.created_at.seconds = int(time.time()) - 7200
    daemon.list.backups.add(path="/b/auto-0", error="the backup is damaged")
    daemon.list.error = "no room"
    daemon.list.failed_at.seconds = int(time.time())
    done = run("backup", "ls")
    lines = done.out.splitlines()
    assert lines[0].split() == ["PATH", "INDEX", "CREATED", "SIZE", "KEY", "ERROR"]
    assert "/b/auto-1   7       2 hours ago   1.5kB" in lines[1]
    assert lines[2].endswith("the backup is damaged")
    assert "failed" in done.err
    assert "no room" in done.err
    assert run("backup", "ls", "-q").out == "/b/auto-1\n/b/auto-0\n"
    daemon.list.interval_s = 0
    assert "are off" in run("backup", "ls").err


def test_the_key_is_shown_alone_when_asked_for_quietly(run: Run) -> None:
    assert run("backup", "key", "-q").out == f"{format_key(KEY)}\n"
    assert "Keep the old key" in run("backup", "key", "--rotate").out


def test_a_restore_says_what_will_be_and_waits_for_a_yes(
    daemon: FakeDaemon, run: Run, folder: Path, key_file: str
) -> None:
    put(folder, "mine", backup())
    asked = run("restore", "--key-file", key_file, "mine")
    assert asked.code == 1
    assert "n1 192.0.2.1:2377" in asked.err
    assert "Lost:" in asked.err
    assert not daemon.restored
    done = run("restore", "--yes", "--key-file", key_file, "--advertise-addr", "192.0.2.9", "mine")
    assert done.code == 0, done.err
    header, *data = daemon.restored
    assert (header.header.key, header.header.addresses.advertise_addr) == (KEY, "192.0.2.9")
    assert b"".join(request.data for request in data) == (folder / "mine").read_bytes()


def test_a_restore_beside_managers_that_still_answer_is_refused(
    daemon: FakeDaemon, run: Run, folder: Path, key_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "mine", backup())
    asked: list[str] = []
    monkeypatch.setattr("pyswarm_cli.commands.restore.answers_elsewhere", lambda address: asked.append(address) or True)
    refused = run("restore", "--yes", "--key-file", key_file, "mine")
    assert (refused.code, daemon.restored, asked) == (1, [], ["192.0.2.1:2377"])
    assert refused.err.startswith("still answering: n1 (192.0.2.1:2377). If they are managers of this"), (
        "no plan before"
    )
    assert run("restore", "--yes", "--force", "--key-file", key_file, "mine").code == 0
    assert daemon.restored


def test_what_answers_on_this_very_machine_is_no_old_manager() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not answers_elsewhere(f"127.0.0.1:{listener.getsockname()[1]}")
    for odd in ("", "nonsense", "127.0.0.1:99999999", ":x", "[::1]:1"):
        assert not answers_elsewhere(odd)


@pytest.mark.parametrize(
    ("leader", "flags", "said"),
    [(7, [], "this swarm has a leader"), (0, ["--advertise-addr", "192.0.2.9"], "keeps its addresses")],
)
def test_what_its_own_swarm_will_not_have_is_refused_before_the_plan_is_shown(
    daemon: FakeDaemon, run: Run, folder: Path, key_file: str, leader: int, flags: list[str], said: str
) -> None:
    put(folder, "mine", backup())
    daemon.member_of, daemon.leader = CLUSTER_ID, leader
    refused = run("restore", "--yes", "--key-file", key_file, *flags, "mine")
    assert (refused.code, daemon.restored) == (1, [])
    assert said in refused.err
    assert "Lost:" not in refused.err


def test_a_file_without_a_name_is_refused(daemon: FakeDaemon, run: Run) -> None:
    refused = run("backup", "")
    assert (refused.code, len(refused.err.splitlines())) == (1, 1)
    assert refused.err.startswith("the name of the file is empty")
    assert not daemon.requests


def test_a_restore_in_its_own_swarm_says_that_the_node_stays(
    daemon: FakeDaemon, run: Run, folder: Path, key_file: str
) -> None:
    put(folder, "mine", backup())
    daemon.member_of = CLUSTER_ID
    assert "stays the node it is" in run("restore", "--yes", "--key-file", key_file, "mine").err
    daemon.member_of = ""
    assert "stays the node it is" not in run("restore", "--yes", "--key-file", key_file, "mine").err


def test_a_restore_opens_what_a_passphrase_sealed(daemon: FakeDaemon, run: Run, folder: Path) -> None:
    put(folder, "secret", f"{PASSPHRASE}\n".encode())
    assert run("backup", "--passphrase-file", "secret", "asked").code == 0
    given = daemon.requests[0].passphrase
    params = PassphraseParams(given.salt, given.log2_n, given.r, given.p)
    put(folder, "mine", backup(given.key, key_id="", passphrase=params))
    assert run("restore", "--yes", "--key-file", "secret", "mine").code == 0
    assert daemon.restored[0].header.key == given.key


def test_nothing_is_sent_of_a_backup_that_is_not_whole_or_to_a_machine_in_another_swarm(
    daemon: FakeDaemon, run: Run, folder: Path, key_file: str
) -> None:
    put(folder, "cut", backup()[:-1])
    assert "damaged" in run("restore", "--yes", "--key-file", key_file, "cut").err
    put(folder, "mine", backup())
    without = run("restore", "--yes", "mine")
    assert "--key-file" in without.err
    daemon.member_of = "d" * 25
    assert "already part of a swarm" in run("restore", "--yes", "--key-file", key_file, "mine").err
    assert not daemon.restored


def test_forcing_a_new_cluster_names_who_is_dropped_and_waits_for_a_yes(daemon: FakeDaemon, run: Run) -> None:
    daemon.plan.dropped.add(node_id="node2", hostname="n2", address="192.0.2.2:2377", raft_id=2)
    asked = run("init", "--force-new-cluster")
    assert asked.code == 1
    assert "n2 192.0.2.2:2377 node2" in asked.err
    assert "index 11 (2 of it perhaps never acknowledged)" in asked.err
    assert daemon.forced == 0
    assert run("init", "--force-new-cluster", "--yes").code == 0
    assert daemon.forced == 1
    daemon.plan.is_done = True
    assert "Nothing to do" in run("init", "--force-new-cluster").out
    assert daemon.forced == 1


def test_forcing_a_new_cluster_takes_no_flags_of_a_new_one(daemon: FakeDaemon, run: Run) -> None:
    refused = run("init", "--force-new-cluster", "--data-path-port", "5000", "--yes")
    assert refused.code == 1
    assert "--advertise-addr" in refused.err
    assert daemon.forced == 0


def test_a_file_that_is_called_like_a_command_needs_its_folder(run: Run, folder: Path) -> None:
    assert run("backup", "./ls").code == 0
    with (folder / "ls").open("rb") as file:
        assert Reader(file).check()

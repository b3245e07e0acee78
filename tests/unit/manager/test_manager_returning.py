"""What a returning manager goes by: its own log's loss, signed announcements, and who may speak under a raft id."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.v1 import raft_pb2 as pb
from pyswarm_common.errors import FailedPrecondition, InvalidArgument
from pyswarm_common.identity import NodeIdentity, RootAuthority, generate_key, key_to_pem, make_csr
from pyswarm_common.model import ManagerStatus, Node, NodeRole
from pyswarm_manager import rejoin
from pyswarm_manager.announcement import announce, verified
from pyswarm_manager.config import ManagerConfig, ManagerPaths
from pyswarm_manager.raft.core.types import LogLost
from pyswarm_manager.raft.storage.port import StorageCorrupt
from pyswarm_manager.speakers import Speakers
from pyswarm_manager.standing import Standing
from pyswarm_manager.store.changes import Event
from pyswarm_manager.whereabouts import MAX_KNOWN, Whereabouts

DAY = 86_400.0
OWN, OTHER = "192.0.2.1:2377", "192.0.2.2:2377"


@pytest.fixture
def paths(tmp_path: Path) -> ManagerPaths:
    paths = ManagerPaths(tmp_path, tmp_path / "run")
    paths.directory.mkdir()
    return paths


def config(**changes: Any) -> ManagerConfig:
    return ManagerConfig(**{"raft_id": 7, "advertise_address": OWN, "join_addresses": (OTHER,), **changes})


async def opened(config: ManagerConfig, paths: ManagerPaths, error: Exception | None = None) -> ManagerConfig:
    """The configuration that the manager was opened with; the first time it fails with `error`."""
    tries: list[ManagerConfig] = []

    async def open_manager(config: ManagerConfig) -> ManagerConfig:
        tries.append(config)
        if error is not None and len(tries) == 1:
            raise error
        return config

    return await rejoin.opened(config, paths, (), open_manager)


async def test_a_first_start_is_no_loss(paths: ManagerPaths) -> None:
    result = await opened(config(), paths)
    assert result.raft_id == 7
    assert ManagerConfig.load(paths).has_log


@pytest.mark.parametrize("error", [StorageCorrupt("entry 9 was changed"), LogLost("an older copy")])
async def test_a_log_that_cannot_be_used_goes_aside(paths: ManagerPaths, error: Exception) -> None:
    for name in ("raft.db", "raft.db-wal"):
        (paths.directory / name).write_bytes(b"damaged")
    result = await opened(config(has_log=True), paths, error)
    assert result.raft_id != 7
    assert ManagerConfig.load(paths) == result
    (aside,) = paths.directory.glob("damaged-*")
    assert {path.name for path in aside.iterdir()} == {"raft.db", "raft.db-wal", "reason.txt"}
    assert not paths.database.exists()


async def test_a_mark_left_while_running_is_acted_on_once(paths: ManagerPaths) -> None:
    paths.database.write_bytes(b"short")
    rejoin.mark_lost(paths, "the leader knows better")
    again = await opened(config(has_log=True), paths)
    assert again.raft_id != 7
    paths.database.write_bytes(b"new")
    assert (await opened(again, paths)).raft_id == again.raft_id


async def test_a_missing_log_is_a_loss_only_where_there_was_one(paths: ManagerPaths) -> None:
    assert (await opened(config(has_log=True), paths)).raft_id != 7
    paths.bootstrap.write_bytes(b"made here, and not committed")
    assert (await opened(config(has_log=True), paths)).raft_id == 7


async def test_without_others_nothing_is_touched(paths: ManagerPaths) -> None:
    paths.database.write_bytes(b"damaged")
    with pytest.raises(FailedPrecondition, match="pyswarm restore"):
        await opened(config(has_log=True, join_addresses=()), paths, StorageCorrupt("entry 9 was changed"))
    assert paths.database.read_bytes() == b"damaged"
    assert not list(paths.directory.glob("damaged-*"))


async def test_who_was_the_only_manager_at_last_asks_nobody(paths: ManagerPaths) -> None:
    Standing(raft_id=7, members={7: OWN}).save(paths.standing)
    with pytest.raises(FailedPrecondition, match="pyswarm restore"):
        await opened(config(has_log=True), paths)


def test_the_last_members_are_asked_and_old_copies_do_not_pile_up(paths: ManagerPaths) -> None:
    Standing(raft_id=7, members={7: OWN, 8: OTHER}, seeds=("managers.test:2377",)).save(paths.standing)
    lost = config(join_addresses=())
    for _ in range(rejoin.KEPT_COPIES + 2):
        anew = rejoin.start_anew(lost, paths, (), "missing")
        assert anew.join_addresses == (OTHER, "managers.test:2377")
    assert len(list(paths.directory.glob("damaged-*"))) == rejoin.KEPT_COPIES


def test_a_log_that_ends_before_what_was_applied_is_an_older_copy(paths: ManagerPaths) -> None:
    Standing(raft_id=7, index=100).save(paths.standing)
    rejoin.check_not_older(paths, 7, 100)
    rejoin.check_not_older(paths, 8, 3)
    with pytest.raises(LogLost, match="older copy"):
        rejoin.check_not_older(paths, 7, 99)


# ---- announcements

ROOT = RootAuthority.create("cluster", time.time())


def identity(
    root: RootAuthority = ROOT, role: NodeRole = NodeRole.MANAGER, cluster: str = "cluster", node_id: str = "n1"
) -> NodeIdentity:
    key = generate_key()
    now = time.time()
    csr = make_csr(key)
    certificate = root.issue(csr, node_id=node_id, cluster_id=cluster, role=role, now=now, lifetime_s=DAY)
    return NodeIdentity(certificate, key_to_pem(key), ROOT.cert_pem)


def test_an_announcement_is_believed_by_its_signature_alone() -> None:
    said = announce(identity(), 7, OWN, 5, ("managers.test:2377",))
    heard = verified(pb.RaftAnnouncement.FromString(said.message.SerializeToString()), identity(), time.time())
    assert (heard.node_id, heard.raft_id, heard.address, heard.sequence) == ("n1", 7, OWN, 5)
    assert heard.seeds == ("managers.test:2377",)


@pytest.mark.parametrize(
    "by",
    [
        lambda: identity(role=NodeRole.WORKER),
        lambda: identity(root=RootAuthority.create("cluster", time.time())),
        lambda: identity(cluster="another"),
    ],
)
def test_others_announcements_are_not_believed(by: Callable[[], NodeIdentity]) -> None:
    with pytest.raises(InvalidArgument):
        verified(announce(by(), 7, OWN, 5, ()).message, identity(), time.time())


def test_what_was_changed_or_has_expired_is_not_believed() -> None:
    message = announce(identity(), 7, OWN, 5, ()).message
    other = announce(identity(), 7, OTHER, 6, ()).message
    mixed = pb.RaftAnnouncement(body=other.body, certificate=message.certificate, signature=message.signature)
    with pytest.raises(InvalidArgument, match="signature"):
        verified(mixed, identity(), time.time())
    with pytest.raises(InvalidArgument, match="not valid now"):
        verified(message, identity(), time.time() + 2 * DAY)
    assert verified(message, identity(), None).address == OWN


@pytest.mark.parametrize("address", ["", "somewhere:2377", "192.0.2.1", "192.0.2.1:0", "192.0.2.1:99999", "x" * 400])
def test_an_announced_address_is_an_ip_address_and_a_port(address: str) -> None:
    with pytest.raises(InvalidArgument):
        verified(announce(identity(), 7, address, 5, ()).message, identity(), time.time())


KNOWN, READER = announce(identity(), 7, OWN, 5, ("managers.test:2377",)).message.SerializeToString(), identity()


@given(at=st.integers(0, len(KNOWN) - 1), put=st.binary(max_size=40), cut=st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_damaged_announcements_are_refused_in_a_sentence(at: int, put: bytes, cut: int) -> None:
    try:
        message = pb.RaftAnnouncement.FromString(KNOWN[:at] + put + KNOWN[at + cut :])
    except DecodeError:
        return  # gRPC refuses it
    with contextlib.suppress(InvalidArgument):
        heard = verified(message, READER, time.time())
        assert (heard.raft_id, heard.address) == (7, OWN)


async def test_what_is_not_believed_is_said_once_however_often_it_is_passed_on(
    paths: ManagerPaths, caplog: pytest.LogCaptureFixture
) -> None:
    """A manager that was away while the root was replaced: the others pass on what it announced by the old one."""
    store, raft = FakeStore(), SimpleNamespace(members={}, raft_id=7)
    whereabouts = Whereabouts(config(), paths, identity, store, raft, Speakers(store, lambda: None))  # type: ignore[arg-type]
    before = RootAuthority.create("cluster", time.time())
    old, older = identity(root=before, node_id="n2"), identity(root=before, node_id="n3")
    for sequence in range(1, 4):
        whereabouts.exchange([announce(old, 8, OTHER, sequence, ()).message])
    assert len(caplog.records) == 1
    whereabouts.exchange([announce(older, 9, OTHER, 1, ()).message])
    assert len(caplog.records) == 2
    for _ in range(3 * MAX_KNOWN):
        whereabouts.exchange([pb.RaftAnnouncement(certificate=secrets.token_bytes(8))])
    assert len(whereabouts._doubted) <= MAX_KNOWN


# ---- who may speak


class FakeStore:
    def __init__(self, *nodes: Node) -> None:
        self.view = SimpleNamespace(nodes={node.id: node for node in nodes})
        self.callback: Callable[[int, tuple[Event, ...]], None] = lambda index, events: None

    def subscribe(self, callback: Callable[[int, tuple[Event, ...]], None]) -> Callable[[], None]:
        self.callback = callback
        return lambda: None

    def put(self, node: Node) -> None:
        event = Event(self.view.nodes.get(node.id), node)
        self.view.nodes[node.id] = node
        self.callback(1, (event,))


def manager(node_id: str, raft_id: int) -> Node:
    return Node(id=node_id, manager_status=ManagerStatus(raft_id=raft_id, address=OWN))


def test_a_raft_id_is_spoken_for_by_its_node_alone() -> None:
    store: Any = FakeStore(manager("a", 1), manager("b", 2))
    heard_leader: int | None = 1
    speakers = Speakers(store, lambda: heard_leader)
    assert speakers.refusal(1, "a") is None
    assert "another node" in (speakers.refusal(1, "b") or "")
    assert "no manager" in (speakers.refusal(3, "b") or "")
    heard_leader = None  # perhaps it is we who are behind
    assert speakers.refusal(3, "c") is None
    assert "another node" in (speakers.refusal(1, "c") or "")


def test_the_leader_that_is_heard_may_bring_the_snapshot_that_names_it() -> None:
    store: Any = FakeStore()  # of a member that has only joined
    speakers = Speakers(store, lambda: 5)
    assert speakers.refusal(5, "leader") is None
    assert speakers.refusal(6, "another") is not None
    store.put(manager("owner", 5))
    assert "another node" in (speakers.refusal(5, "leader") or "")


def test_a_changed_claim_is_looked_at_again() -> None:
    store: Any = FakeStore(manager("a", 1))
    speakers = Speakers(store, lambda: 7)
    assert speakers.refusal(1, "a") is None
    before = speakers.version
    store.put(Node(id="worker"))
    assert speakers.version == before
    store.put(manager("a", secrets.randbelow(1 << 62) + 2))
    assert speakers.version != before
    assert speakers.refusal(1, "a") is not None

"""The parts of a manager process that need no process: configuration, bootstrap, certificates, the leader's group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyswarm_common.errors import FailedPrecondition, InvalidArgument, PyswarmError, Unavailable
from pyswarm_common.identity import NodeIdentity, RootAuthority, generate_key, key_to_pem, make_csr
from pyswarm_common.model import Cluster, ClusterSpec, Node, NodeRole
from pyswarm_manager.bootstrap import Bootstrap, missing_changes
from pyswarm_manager.config import ManagerConfig, ManagerPaths, split_address
from pyswarm_manager.credentials import LiveIdentity
from pyswarm_manager.leadership import lead_while_leader
from pyswarm_manager.main import EXIT_REFUSED, main
from pyswarm_manager.raft.ports import LeadershipChanged
from pyswarm_manager.store.apply import Applied, apply
from pyswarm_manager.store.changes import ChangeSet
from pyswarm_manager.store.tables import Tables

NOW = 1_790_000_000.0


@pytest.fixture
def paths(tmp_path: Path) -> ManagerPaths:
    return ManagerPaths(tmp_path / "state", tmp_path / "run")


# ---------------------------------------------------------------- configuration


def test_a_configuration_is_read_as_it_was_written(paths: ManagerPaths) -> None:
    config = ManagerConfig(raft_id=7, advertise_address="192.0.2.1:2377", join_addresses=("192.0.2.2:2377",))
    config.save(paths)
    assert ManagerConfig.load(paths) == config
    assert paths.config.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, FailedPrecondition),
        (b"{", FailedPrecondition),
        (b'{"raft_id": "x", "advertise_address": "192.0.2.1:2377"}', FailedPrecondition),
        (b'{"raft_id": 1, "advertise_address": "192.0.2.1"}', InvalidArgument),
    ],
)
def test_what_cannot_be_read_is_refused(paths: ManagerPaths, content: bytes | None, error: type[PyswarmError]) -> None:
    if content is not None:
        paths.directory.mkdir(parents=True)
        paths.config.write_bytes(content)
    with pytest.raises(error):
        ManagerConfig.load(paths)


def test_addresses_of_both_families() -> None:
    assert split_address("192.0.2.1:2377") == ("192.0.2.1", 2377)
    assert split_address("[2001:db8::1]:2377") == ("2001:db8::1", 2377)
    for wrong in ("", ":2377", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:x"):
        with pytest.raises(InvalidArgument):
            split_address(wrong)


def test_a_manager_that_is_not_set_up_says_so_in_one_line(
    paths: ManagerPaths, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--state-dir", str(paths.root), "--run-dir", str(paths.run_dir)])
    assert end.value.code == EXIT_REFUSED
    assert "run `pyswarm init` or `pyswarm join`" in caplog.records[-1].getMessage()


# ---------------------------------------------------------------- bootstrap


def commit(view: Tables, bootstrap: Bootstrap) -> int:
    """How many changes it took."""
    ids = iter(f"id{view.index}-{i}" for i in range(10))
    changes = missing_changes(view, bootstrap, lambda: next(ids))
    if changes:
        assert isinstance(apply(view, view.index + 1, ChangeSet(tuple(changes), NOW)), Applied)
    return len(changes)


def test_bootstrap_may_be_repeated(paths: ManagerPaths) -> None:
    bootstrap = Bootstrap(Cluster(id="c1", root_ca_key=b"secret"), Node(id="n1", role=NodeRole.MANAGER))
    bootstrap.save(paths.bootstrap)
    assert paths.bootstrap.stat().st_mode & 0o777 == 0o600
    loaded = Bootstrap.load(paths.bootstrap)
    assert loaded == bootstrap
    view = Tables()
    assert commit(view, bootstrap) == 3
    assert commit(view, bootstrap) == 0
    assert [network.spec.name for network in view.networks.values() if network.spec.ingress] == ["ingress"]


def test_bootstrap_does_not_mix_clusters() -> None:
    view = Tables()
    commit(view, Bootstrap(Cluster(id="c1", spec=ClusterSpec()), Node(id="n1")))
    with pytest.raises(FailedPrecondition):
        missing_changes(view, Bootstrap(Cluster(id="c2"), Node(id="n1")), lambda: "x")


# ---------------------------------------------------------------- certificates


def identity(role: NodeRole) -> NodeIdentity:
    authority, key = RootAuthority.create("c1", NOW), generate_key()
    cert = authority.issue(make_csr(key), node_id="n1", cluster_id="c1", role=role, now=NOW, lifetime_s=1e8)
    return NodeIdentity(cert, key_to_pem(key), authority.cert_pem)


def test_only_a_managers_certificate_is_served(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="no node certificate"):
        LiveIdentity(tmp_path)
    good = identity(NodeRole.MANAGER)
    good.save(tmp_path)
    live = LiveIdentity(tmp_path)
    identity(NodeRole.WORKER).save(tmp_path)
    with pytest.raises(FailedPrecondition, match="worker"):
        live.reload()
    assert live() == good
    other = identity(NodeRole.MANAGER)
    NodeIdentity(other.cert_pem, good.key_pem, other.root_cert_pem).save(tmp_path)
    with pytest.raises(FailedPrecondition, match="not that of the certificate"):
        live.reload()
    other.save(tmp_path)
    live.reload()
    assert live() == other


# ---------------------------------------------------------------- the leader's group


class FakeRaft:
    """Leadership as the test sets it."""

    leader_address = None

    def __init__(self) -> None:
        self.leadership = LeadershipChanged(1, None, False)
        self._changed = asyncio.Event()

    def set(self, term: int, leads: bool) -> None:
        self.leadership = LeadershipChanged(term, 1 if leads else 2, leads)
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_writable(self) -> None:
        """Its disk has room."""

    async def wait_leadership_change(self, previous: LeadershipChanged) -> LeadershipChanged:
        while self.leadership == previous:
            await self._changed.wait()
        return self.leadership

    async def subscribe_leadership(self) -> AsyncIterator[LeadershipChanged]:
        while True:
            seen = self.leadership
            yield seen
            await self.wait_leadership_change(seen)


class Loops:
    """Two loops that tell when they run."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.fail: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def one(self) -> None:
        await self._run("one", asyncio.Event().wait())

    async def two(self) -> None:
        await self._run("two", asyncio.shield(self.fail))

    async def _run(self, name: str, work: object) -> None:
        self.running.append(name)
        try:
            await work  # type: ignore[misc]
        finally:
            self.running.remove(name)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_loops_run_while_leading_and_not_a_moment_longer() -> None:
    raft, loops = FakeRaft(), Loops()
    leading = asyncio.create_task(lead_while_leader(raft, [loops.one, loops.two]))  # type: ignore[arg-type]
    await settle()
    assert loops.running == []
    for term in (2, 4):
        raft.set(term, leads=True)
        await settle()
        assert loops.running == ["one", "two"]
        raft.set(term + 1, leads=False)
        await settle()
        assert loops.running == []
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)


async def test_a_bug_in_one_loop_ends_all() -> None:
    raft, loops = FakeRaft(), Loops()
    raft.set(2, leads=True)
    leading = asyncio.create_task(lead_while_leader(raft, [loops.one, loops.two]))  # type: ignore[arg-type]
    await settle()
    loops.fail.set_exception(ValueError("bug"))
    with pytest.raises(ExceptionGroup) as raised:
        await leading
    assert isinstance(raised.value.exceptions[0], ValueError)
    assert loops.running == []


async def test_lost_leadership_in_a_loop_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyswarm_manager.leadership._PAUSE_S", 0.0)
    raft, loops = FakeRaft(), Loops()
    raft.set(2, leads=True)
    leading = asyncio.create_task(lead_while_leader(raft, [loops.one, loops.two]))  # type: ignore[arg-type]
    await settle()
    failed, loops.fail = loops.fail, asyncio.get_running_loop().create_future()
    failed.set_exception(Unavailable("no quorum"))
    await settle()
    assert loops.running == ["one", "two"], "it still leads, so it begins again"
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)
    assert loops.running == []

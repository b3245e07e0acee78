"""Join tokens with an expiry and a number of uses: each use counted once, whoever races for it and whatever is lost."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manager_harness import Swarm, make_identity
from msgspec.structs import replace
from test_ca_join import request

from pyswarm.v1 import ca_pb2, security_pb2, types_pb2
from pyswarm_common import errors
from pyswarm_common.identity import JoinToken, generate_key, make_csr
from pyswarm_common.identity.join_client import request_certificate
from pyswarm_common.ids import id_from_bits
from pyswarm_common.model import LimitedJoinToken, NodeRole
from pyswarm_manager.ca import issuing, tokens, upkeep
from pyswarm_manager.ca.https import WRONG_TOKENS, JoinServer
from pyswarm_manager.removed import removal
from pyswarm_manager.store.changes import Update
from pyswarm_manager.writes import Writer, cluster_of


class Clock:
    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


class Office:
    """Where tokens are made and machines come with them."""

    def __init__(self, swarm: Swarm, clock: Clock) -> None:
        leader = swarm.leader
        self.swarm, self.clock, self.turns, self._made = swarm, clock, asyncio.Lock(), 0
        self.writer = Writer(leader.store, leader.raft, self._id, clock)

    def _id(self) -> str:
        self._made += 1
        return id_from_bits(self._made)

    async def make(self, **fields: Any) -> str:
        request = security_pb2.CreateJoinTokenRequest(**fields)
        made = await tokens.create(self.writer, cluster_of(self.writer), request)
        assert made.join_token.secret_hash == b""
        return str(made.token)

    async def join(self, token: str, csr: bytes = b"") -> ca_pb2.IssueCertificateResponse:
        request = ca_pb2.IssueCertificateRequest(
            csr=csr or make_csr(generate_key()), token=token, hostname="host1", address="10.0.0.9"
        )
        return await issuing.issue(self.writer, request, self.turns)

    def only(self) -> LimitedJoinToken:
        (token,) = self.writer.store.view.join_tokens.values()
        return token


@pytest.fixture
def office(swarm: Swarm) -> Office:
    return Office(swarm, Clock())


async def test_a_token_gives_its_role_as_often_as_it_says(office: Office) -> None:
    token = await office.make(role=types_pb2.NODE_ROLE_MANAGER, uses=2, label="rack 7")
    for left in (1, 0):
        answer = await office.join(token)
        assert answer.role == types_pb2.NODE_ROLE_MANAGER
        assert office.only().uses_left == left
    with pytest.raises(errors.FailedPrecondition, match=r"used up \(2 machines joined with it\): ask for a new one"):
        await office.join(token)
    assert len(office.writer.store.view.nodes) == 3


async def test_only_the_hash_of_a_secret_is_kept(office: Office) -> None:
    token = JoinToken.parse(await office.make(uses=1))
    kept = office.only()
    assert kept.secret_hash == token.secret_hash
    assert token.secret not in repr(office.writer.store.view.join_tokens)


async def test_two_machines_race_for_the_last_use(office: Office) -> None:
    token = await office.make(uses=3)
    results = await asyncio.gather(*(office.join(token) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, errors.FailedPrecondition) for result in results) == 17
    assert sum(isinstance(result, ca_pb2.IssueCertificateResponse) for result in results) == 3
    assert len(office.writer.store.view.nodes) == 4
    assert office.only().uses_left == 0


async def test_the_store_settles_a_race_that_no_lock_prevented(office: Office) -> None:
    """An old leader and a new one, say: the change set that counts the use holds for one of them only."""
    token = await office.make(uses=1)
    offices = [Office(office.swarm, office.clock) for _ in range(4)]
    results = await asyncio.gather(*(other.join(token) for other in offices), return_exceptions=True)
    assert sum(isinstance(result, ca_pb2.IssueCertificateResponse) for result in results) == 1
    assert all(isinstance(result, ca_pb2.IssueCertificateResponse | errors.FailedPrecondition) for result in results)
    assert len(office.writer.store.view.nodes) == 2


async def test_asking_again_after_a_lost_answer_counts_once(office: Office) -> None:
    token, csr = await office.make(uses=2), make_csr(generate_key())
    ids = {(await office.join(token, csr)).node_id for _ in range(3)}
    both = await asyncio.gather(*(office.join(token, csr) for _ in range(3)))
    assert len(ids | {answer.node_id for answer in both}) == 1
    assert office.only().uses_left == 1
    office.clock.ahead_s = 1e6  # what was lost may be asked for again later, too
    await office.join(token, csr)


async def test_an_expired_token(office: Office) -> None:
    token = await office.make(expires_in_s=60.0)
    await office.join(token)
    office.clock.ahead_s = 61.0
    with pytest.raises(errors.FailedPrecondition, match="has expired: ask for a new one with"):
        await office.join(token)


async def test_a_token_without_limits_goes_on(office: Office) -> None:
    token = await office.make()
    index = office.only().meta.version
    for _ in range(3):
        await office.join(token)
    assert office.only().meta.version == index


async def test_a_removed_token_is_a_wrong_one(office: Office) -> None:
    token = await office.make(uses=5)
    removed = await tokens.remove(office.writer, office.only().id[:20])
    assert removed.id not in office.writer.store.view.join_tokens
    with pytest.raises(errors.Unauthenticated, match="invalid join token"):
        await office.join(token)
    with pytest.raises(errors.NotFound, match="not found"):
        await tokens.remove(office.writer, removed.id)


async def test_a_removed_node_does_not_come_back_with_its_old_key(office: Office) -> None:
    """Its id follows from the key, and the id is refused; a machine that joins again makes a new key."""
    token, csr = await office.make(), make_csr(generate_key())
    node_id = (await office.join(token, csr)).node_id
    view = office.writer.store.view
    await office.writer.store.propose(removal(view, view.nodes[node_id], time.time()))
    with pytest.raises(errors.NodeRemoved, match="was removed from the swarm"):
        await office.join(token, csr)


async def test_refusals_say_what_is_wrong(office: Office) -> None:
    for fields, sentence in (
        ({"role": 7}, "worker or manager"),
        ({"expires_in_s": -1.0}, "ten years"),
        ({"expires_in_s": float("nan")}, "ten years"),
        ({"uses": 2_000_000}, "at most 1000000"),
        ({"label": "x" * 65}, "64 printable"),
        ({"label": "a\nb"}, "64 printable"),
    ):
        with pytest.raises(errors.InvalidArgument, match=sentence):
            await office.make(**fields)
    assert not office.writer.store.view.join_tokens


async def test_the_number_of_tokens_is_bounded(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_TOKENS", 2)
    for _ in range(2):
        await office.make(uses=1)
    with pytest.raises(errors.Exhausted, match="2 join tokens exist: remove some"):
        await office.make(uses=1)


async def test_tokens_that_ended_are_reaped_a_day_later(office: Office) -> None:
    await office.make(expires_in_s=3600.0, label="expires")
    used = await office.make(uses=1, label="used")
    await office.make(label="stays")
    await office.join(used)
    view = office.writer.store.view
    day = tokens.KEPT_AFTER_END_S
    for later_s, left in ((day - 60, 3), (day + 60, 2), (day + 3700, 1)):
        now = office.clock() + later_s
        ended = {view.join_tokens[change.id].label for change in upkeep.ended(view, now)}  # type: ignore[union-attr]
        assert len(view.join_tokens) - len(ended) == left, ended


async def test_guessing_is_stopped_and_a_mistake_with_an_old_token_is_not(swarm: Swarm) -> None:
    office = Office(swarm, Clock())
    old = await office.make(uses=1)
    await office.join(old)
    server = JoinServer(swarm.leader.ca, lambda: make_identity(swarm.root, swarm.leader.node_id, NodeRole.MANAGER))
    port = await server.start("127.0.0.1", 0)
    address, root = f"127.0.0.1:{port - 1}", swarm.root.cert_pem
    try:
        for _ in range(WRONG_TOKENS + 2):
            with pytest.raises(errors.FailedPrecondition, match="used up"):
                await request_certificate(address, root, request(old))
        for _ in range(WRONG_TOKENS):
            with pytest.raises(errors.Unauthenticated):
                await request_certificate(address, root, request(str(JoinToken.generate(root))))
        with pytest.raises(errors.Exhausted, match="too many wrong join tokens"):
            await request_certificate(address, root, request(old))
    finally:
        await server.close()


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=120) | st.from_regex(r"SWMTKN-1-[0-9a-z]{0,60}-[0-9a-z]{0,30}", fullmatch=True))
def test_whatever_is_typed_as_a_token(text: str) -> None:
    """It is a token, and reads back as itself; or it is refused."""
    try:
        token = JoinToken.parse(text)
    except errors.InvalidArgument:
        return
    assert str(token) == text.strip()
    assert token.secret not in repr(token)


async def test_a_use_is_counted_with_the_node_or_not_at_all(office: Office) -> None:
    """The token changes while its use is on the way: nothing is made of the first attempt, all of the next."""
    token = await office.make(uses=5)
    store, seen = office.writer.store, []
    propose = store.propose

    class Meddling:
        view = store.view

        async def propose(self, changes: Any) -> int:
            if not seen:
                seen.append(True)
                await propose([Update(replace(office.only(), label="changed meanwhile"))])
            return await propose(changes)

    office.writer = Writer(Meddling(), office.writer.raft, office.writer.ids, office.clock)
    await office.join(token)
    assert office.only().uses_left == 4
    assert len(store.view.nodes) == 2

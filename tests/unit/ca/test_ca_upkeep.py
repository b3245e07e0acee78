"""The CA's loops on a real store: what nodes show is written down, and nothing that others write is lost by it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from manager_harness import Swarm, make_identity, worker_node
from msgspec.structs import replace

from pyswarm.v1 import ca_pb2
from pyswarm_common.errors import Exhausted
from pyswarm_common.identity import RootAuthority
from pyswarm_common.ids import id_from_bits
from pyswarm_common.model import NodeRole, NodeState, NodeStatus, RemovedNode
from pyswarm_manager.ca import certificates, rotation, upkeep
from pyswarm_manager.ca.certificates import CertificateBook
from pyswarm_manager.ca.upkeep import run_upkeep
from pyswarm_manager.store.changes import Create, SetNodeStatus, Update


@contextlib.asynccontextmanager
async def running(*loops: Any) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(loop) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


async def test_what_many_nodes_show_is_written_down_while_their_statuses_change(swarm: Swarm) -> None:
    store = swarm.leader.store
    ids = [id_from_bits(number) for number in range(60)]
    await swarm.create(*(worker_node(node_id, f"h{node_id}") for node_id in ids))
    book = CertificateBook(store)
    identities = {node_id: make_identity(swarm.root, node_id, NodeRole.WORKER) for node_id in ids}

    async def chatter() -> None:
        for round_ in range(30):
            await store.propose([SetNodeStatus(n, NodeStatus(state=NodeState.READY, message=str(round_))) for n in ids])

    async with running(book.run()):
        for node_id, identity in identities.items():
            book.seen(node_id, identity.cert_pem)
        await chatter()
        await swarm.wait(lambda: all(store.view.nodes[node_id].certificate.issuer for node_id in ids))
    for node_id, identity in identities.items():
        node = store.view.nodes[node_id]
        assert node.certificate.issuer == swarm.root.issuer
        assert node.certificate.expires_at == pytest.approx(identity.validity[1], abs=1)
        assert node.status.message == "29"


async def test_what_is_known_already_is_not_written_again(swarm: Swarm) -> None:
    store, node_id = swarm.leader.store, id_from_bits(1)
    await swarm.create(worker_node(node_id, "one"))
    book, identity = CertificateBook(store), make_identity(swarm.root, node_id, NodeRole.WORKER)
    async with running(book.run()):
        book.seen(node_id, identity.cert_pem)
        await swarm.wait(lambda: bool(store.view.nodes[node_id].certificate.issuer))
        index = store.view.index
        book.seen(node_id, identity.cert_pem)
        book.seen("unknown", identity.cert_pem)
        assert not book._news
    assert store.view.index == index


async def test_a_rotation_of_real_certificates_and_what_the_end_of_it_needs(swarm: Swarm) -> None:
    """Begun on the store, carried by the loops; the nodes answer as they would."""
    store = swarm.leader.store
    ids = [id_from_bits(number) for number in range(40)]
    await swarm.create(*(worker_node(node_id, f"h{node_id}") for node_id in ids))
    cluster = store.view.cluster
    assert cluster is not None
    target = RootAuthority.create(cluster.id, time.time())
    book = CertificateBook(store)
    async with running(book.run(), run_upkeep(store, time.time)):
        await store.propose([Update(rotation.begun(cluster, target, time.time()))])
        while (now := store.view.cluster) is not None and now.root_rotation is not None:
            for node in tuple(store.view.nodes.values()):
                if node.certificate.renew_from == target.issuer:
                    book.seen(node.id, make_identity(target, node.id, node.role).cert_pem)
            await asyncio.sleep(0.002)
    assert now is not None
    assert now.root_ca_cert == target.cert_pem
    assert not any(node.certificate.renew_from for node in store.view.nodes.values())


async def test_removed_nodes_are_forgotten_when_their_certificates_have_expired(swarm: Swarm) -> None:
    store, now = swarm.leader.store, time.time()
    await store.propose(
        [Create(RemovedNode(id="a" * 25, expires_at=now - 1)), Create(RemovedNode(id="b" * 25, expires_at=now + 3600))]
    )
    async with running(run_upkeep(store, time.time)):
        await swarm.wait(lambda: list(store.view.removed_nodes) == ["b" * 25])


async def test_a_store_that_takes_nothing_now_is_asked_again(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, say: it neither ends the leader's term nor loses anything."""
    monkeypatch.setattr(upkeep, "_REFUSED_PAUSE_S", 0.0)
    monkeypatch.setattr(certificates, "_REFUSED_PAUSE_S", 0.0)
    store, node_id = swarm.leader.store, id_from_bits(1)
    await swarm.create(worker_node(node_id, "one"))
    await store.propose([Create(RemovedNode(id="a" * 25, expires_at=1.0))])
    refusals = iter(range(6))

    class Full:
        view, subscribe = store.view, staticmethod(store.subscribe)

        async def propose(self, changes: Any) -> int:
            if next(refusals, None) is not None:
                raise Exhausted("the disk is full")
            return await store.propose(changes)

    full = Full()
    book = CertificateBook(full)
    async with running(book.run(), run_upkeep(full, time.time)):
        book.seen(node_id, make_identity(swarm.root, node_id, NodeRole.WORKER).cert_pem)
        await swarm.wait(lambda: not store.view.removed_nodes and bool(store.view.nodes[node_id].certificate.issuer))


async def test_the_node_that_leaves_is_refused_from_then_on(swarm: Swarm) -> None:
    store, node_id = swarm.leader.store, id_from_bits(1)
    node = worker_node(node_id, "one")
    expiry = time.time() + 5_000
    await swarm.create(replace(node, certificate=replace(node.certificate, expires_at=expiry)))
    stub = swarm.ca(identity=make_identity(swarm.root, node_id, NodeRole.WORKER))
    await stub.Leave(ca_pb2.LeaveRequest())
    left = store.view.nodes[node_id]
    assert left.certificate.is_void
    assert store.view.removed_nodes[node_id].expires_at >= expiry + 3600

"""One suite for every Transport: three members over it, with what goes wrong on networks. And what only gRPC does."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc
import pytest

from pyswarm.v1 import raft_pb2 as pb
from pyswarm.v1 import raft_pb2_grpc
from pyswarm_manager.raft.core.messages import (
    Append,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from pyswarm_manager.raft.core.types import Configuration, Entry, EntryKind, Member, MemberRole, Snapshot
from pyswarm_manager.raft.peer import REMOVED_KEY
from pyswarm_manager.raft.transport import GrpcTransport
from pyswarm_manager.raft.wire import BatchEncoder, assemble_snapshot, decode, encode, snapshot_chunks

sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / "raft"))
from raft_cluster import CLUSTER_ID, TestCluster

KINDS = ["memory", "grpc", "lanes"]


@pytest.mark.parametrize("kind", KINDS)
async def test_three_members_agree(kind: str) -> None:
    async with TestCluster(kind) as cluster:
        leader = await cluster.grow(3)
        await asyncio.gather(*(leader.propose(b"%d" % n) for n in range(200)))
        await cluster.until(lambda: cluster.journal(1) == cluster.journal(2) == cluster.journal(3))
        assert len(cluster.journal(3)) == 200
        assert await cluster.members[3].node.read_barrier() >= 200


async def test_messages_go_by_lanes_and_by_grpc_while_there_is_none() -> None:
    async with TestCluster("lanes") as cluster:
        leader = await cluster.grow(3)
        transports = [member.node._transport for member in cluster.members.values()]
        assert all(isinstance(transport, GrpcTransport) for transport in transports)
        await cluster.until(lambda: all(len(transport.lanes) == 2 for transport in transports))
        await leader.propose(b"by lane")
        for member in cluster.members.values():
            for offer in list(member.lanes._offers.values()):
                offer._transport.abort()
        await leader.propose(b"by gRPC")
        await cluster.until(lambda: cluster.journal(3) == [b"by lane", b"by gRPC"] == cluster.journal(2))


async def test_a_removed_member_is_not_heard_on_its_lane_either() -> None:
    async with TestCluster("lanes") as cluster:
        leader = await cluster.grow(3)
        lanes, removed = cluster.members[1].lanes, cluster.members[3]
        await cluster.until(lambda: len(lanes._offers) == 2)
        await leader.remove_member(3)
        await asyncio.wait_for(removed.node.wait_removed(), 10)

        def is_cut_when_it_speaks() -> bool:
            removed.node._transport.send([VoteRequest(1, 3, 1000, 1000, 1000, False, False)])
            return len(lanes._offers) == 1

        await cluster.until(is_cut_when_it_speaks)
        assert leader.is_leader
        assert leader.term < 1000


@pytest.mark.parametrize("kind", KINDS)
async def test_large_entries_arrive(kind: str) -> None:
    async with TestCluster(kind) as cluster:
        leader = await cluster.grow(3)
        entries = [bytes([n]) * 1_400_000 for n in range(5)]
        await asyncio.gather(*(leader.propose(entry) for entry in entries))
        await cluster.until(lambda: cluster.journal(3) == entries == cluster.journal(2))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_large_snapshot_arrives(kind: str) -> None:
    async with TestCluster(kind, snapshot_entries=10, keep_entries=0) as cluster:
        leader = await cluster.grow(1)
        for n in range(12):
            await leader.propose(bytes([65 + n]) * 1_000_000)
        log = leader._loop.core.state.log
        await cluster.until(lambda: log.snapshot.index > 0)
        await cluster.start(2)
        await leader.add_member(2, cluster.members[2].address)
        await cluster.until(lambda: cluster.journal(2) == cluster.journal(1))
        assert cluster.members[2].journal.restored == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_snapshot_travels_while_writes_go_on(kind: str) -> None:
    async with TestCluster(kind, snapshot_entries=10, keep_entries=0) as cluster:
        leader = await cluster.grow(1)
        await asyncio.gather(*(leader.propose(bytes([65 + n]) * 1_000_000) for n in range(12)))
        log, done = leader._loop.core.state.log, asyncio.Event()
        await cluster.until(lambda: log.snapshot.index > 0)

        async def write() -> int:
            count = 0
            while not done.is_set():
                await leader.propose(b"while it travels")
                count += 1
            return count

        writing = asyncio.create_task(write())
        await cluster.start(2)
        await leader.add_member(2, cluster.members[2].address)
        await cluster.until(lambda: cluster.members[2].journal.restored > 0)
        done.set()
        assert await writing > 0
        await cluster.until(lambda: cluster.journal(2) == cluster.journal(1))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_lost_leader_is_replaced_at_once_by_whom_it_refuses(kind: str) -> None:
    """Nobody's timeout ends in this test: the refused connection is what they act on."""
    async with TestCluster(kind, election_ticks=100_000) as cluster:
        await cluster.grow(3)
        await cluster.stop(1)
        leader = await cluster.leader()
        assert leader.raft_id in (2, 3)
        await leader.propose(b"x")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_restarted_member_is_found_again(kind: str) -> None:
    async with TestCluster(kind) as cluster:
        leader = await cluster.grow(3)
        await cluster.stop(3)
        await leader.propose(b"meanwhile")
        await cluster.start(3)
        await cluster.until(lambda: cluster.journal(3) == [b"meanwhile"])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_removed_member_is_told(kind: str) -> None:
    async with TestCluster(kind) as cluster:
        leader = await cluster.grow(3)
        await leader.remove_member(3)
        await asyncio.wait_for(cluster.members[3].node.wait_removed(), 10)
        assert leader.is_leader


async def test_a_member_removed_while_it_was_down_is_told_when_it_returns() -> None:
    async with TestCluster("grpc") as cluster:
        leader = await cluster.grow(3)
        await cluster.stop(3)
        await leader.remove_member(3)
        await cluster.start(3)
        await asyncio.wait_for(cluster.members[3].removed_by_peer.wait(), 20)


async def exchange(address: str, peers: pb.RaftPeers) -> tuple[grpc.StatusCode, str, bool]:
    """How a stream from these peers ends: code, details, and whether it says that the caller was removed."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = raft_pb2_grpc.RaftStub(channel).Exchange(iter([pb.RaftBatch(peers=peers)]))
        code = await call.code()
        trailers = await call.trailing_metadata() or ()
        return code, await call.details(), any(key == REMOVED_KEY for key, _ in trailers)


async def test_strangers_are_refused() -> None:
    async with TestCluster("grpc") as cluster:
        leader = await cluster.grow(1)
        await leader.add_member(2, "127.0.0.1:1")
        await leader.remove_member(2)
        address = cluster.members[1].address
        wrong_cluster = await exchange(address, pb.RaftPeers(cluster_id="cluster-b", sender=9, receiver=1))
        assert wrong_cluster[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "this manager belongs to another cluster")
        wrong_receiver = await exchange(address, pb.RaftPeers(cluster_id=CLUSTER_ID, sender=9, receiver=8))
        assert wrong_receiver[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "another manager has this address now")
        removed = await exchange(address, pb.RaftPeers(cluster_id=CLUSTER_ID, sender=2, receiver=1))
        assert removed[0] is grpc.StatusCode.FAILED_PRECONDITION
        assert removed[2]
        assert (await exchange(address, pb.RaftPeers(cluster_id=CLUSTER_ID, sender=9, receiver=1)))[0] is (
            grpc.StatusCode.OK
        )


ENTRIES = (Entry(8, 3, EntryKind.NOOP, b""), Entry(9, 3, EntryKind.NORMAL, b"x"), Entry(10, 4, EntryKind.CONFIG, b"y"))
MESSAGES: list[Message] = [
    VoteRequest(2, 1, 5, 7, 3, True, False),
    VoteRequest(2, 1, 5, 7, 3, False, True),
    VoteResponse(2, 1, 5, True, True),
    VoteResponse(2, 1, 5, False, False),
    Append(2, 1, 5, 7, 3, 6, ENTRIES),
    Append(2, 1, 5, 7, 3, 6),
    AppendResponse(2, 1, 5, 10),
    AppendResponse(2, 1, 5, 10, True, 6, 2),
    Heartbeat(2, 1, 5, 6, 44),
    HeartbeatResponse(2, 1, 5, 44),
    TimeoutNow(2, 1, 5),
    ReadIndexRequest(2, 1, 5, 2**60),
    ReadIndexResponse(2, 1, 5, 2**60, 12),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_survives_the_wire(message: Message) -> None:
    wire = pb.RaftMessage.FromString(encode(message).SerializeToString())
    assert decode(wire, sender=1, to=2) == message


def test_what_two_followers_are_told_alike_is_the_same_batch_and_nothing_else_is() -> None:
    entries = (Entry(8, 3, EntryKind.NORMAL, b"x"),)
    told: list[list[Message]] = [
        [Append(2, 1, 5, 7, 3, 6, entries)],
        [Append(3, 1, 5, 7, 3, 6, entries)],
        [Append(3, 1, 5, 7, 3, 7, entries)],
        [Append(3, 1, 5, 7, 3, 7, (Entry(8, 3, EntryKind.NORMAL, b"y"),))],
        [Heartbeat(2, 1, 5, 6, 44), Append(2, 1, 5, 7, 3, 7, entries)],
    ]
    encoder = BatchEncoder()
    batches = [encoder.encoded(messages) for messages in told]
    assert batches[0] is batches[1]
    for messages, batch in zip(told, batches, strict=True):
        wire = pb.RaftBatch.FromString(batch).messages
        assert [decode(message, sender=1, to=messages[0].to) for message in wire] == messages


def test_a_snapshot_survives_the_wire() -> None:
    members = {1: Member("host1:1", MemberRole.VOTER), 2: Member("host2:1", MemberRole.LEARNER)}
    message = InstallSnapshot(2, 1, 5, Snapshot(9, 4, Configuration(members, (3, 4)), b"state" * 200_000))
    peers = pb.RaftPeers(cluster_id=CLUSTER_ID, sender=1, receiver=2)
    header, *rest = list(snapshot_chunks(message, peers))
    assert max(chunk.ByteSize() for chunk in rest) < 1_000_000
    assert assemble_snapshot(header.peers, header.header, b"".join(chunk.data for chunk in rest)) == message


async def test_a_member_that_moved_is_answered_where_it_says_it_is() -> None:
    async with TestCluster("grpc") as cluster:
        leader = await cluster.grow(3)
        await cluster.stop(3)
        old = cluster.members[3].address
        cluster.members[3].address = "moved"
        await cluster.start(3)
        assert cluster.members[3].address != old
        await leader.propose(b"x")
        await cluster.until(lambda: cluster.journal(3) == [b"x"])

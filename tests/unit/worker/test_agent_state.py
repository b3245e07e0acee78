"""The agent's state on disk: what was written is there, what was not is not, in as few syncs as can be."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from worker_fakes import make_task

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.model import TaskState, TaskStatus
from pyswarm_worker import store as module
from pyswarm_worker.statuses import StatusOutbox
from pyswarm_worker.store import AgentStore, drop_table, drop_task, put_ingress, put_managers, put_table, put_task


async def reopened(path: Path, agent: AgentStore) -> AgentStore:
    await agent.close()
    return await AgentStore.open(path)


async def test_everything_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    agent = await AgentStore.open(path)
    first, second = make_task(1), make_task(2)
    whole = pb.NetworkTable(network_id="n", complete=True, version=3, endpoints=[pb.EndpointRecord(endpoint_id="a")])
    more = pb.NetworkTable(
        network_id="n",
        from_version=3,
        version=4,
        endpoints=[pb.EndpointRecord(endpoint_id="b")],
        remove_endpoint_ids=["a"],
        services=[pb.ServiceRecord(service_id="s")],
    )
    await agent.write([put_task(first), put_task(second), *put_table(whole), *put_table(more)])
    await agent.write(
        [*drop_task(second.id), put_ingress(pb.IngressTable(version=7)), put_managers(["192.0.2.1:2377"])]
    )
    agent = await reopened(path, agent)
    saved = await agent.load()
    assert saved.tasks == {first.id: first}
    table = saved.tables["n"]
    assert (table.version, sorted(table.endpoints), sorted(table.services)) == (4, ["b"], ["s"])
    assert saved.ingress is not None
    assert (saved.ingress.version, saved.managers) == (7, ("192.0.2.1:2377",))
    await agent.write(drop_table("n"))
    assert (await agent.load()).tables == {}
    await agent.close()


async def test_writes_that_come_together_are_synced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = []
    commit = module._commit
    monkeypatch.setattr(
        module, "_commit", lambda c, operations: (commits.append(len(operations)), commit(c, operations))
    )
    agent = await AgentStore.open(tmp_path / "agent.db")
    await asyncio.gather(*(agent.write([put_task(make_task(number))]) for number in range(100)))
    assert sum(commits) == 100
    assert len(commits) <= 3
    await agent.close()


async def test_a_write_that_fails_is_told_and_undone(tmp_path: Path) -> None:
    agent = await AgentStore.open(tmp_path / "agent.db")
    with pytest.raises(sqlite3.Error):
        await agent.write([put_task(make_task()), ("INSERT INTO nowhere VALUES (1)", ())])
    assert (await agent.load()).tasks == {}
    await agent.close()


async def test_the_state_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(FailedPrecondition, match="newer pyswarm"):
        await AgentStore.open(path)


def status(state: TaskState) -> TaskStatus:
    return TaskStatus(state=state, timestamp=1.5)


async def test_statuses_leave_the_outbox_only_when_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    agent = await AgentStore.open(path)
    outbox = StatusOutbox(agent)
    run = asyncio.create_task(outbox.run())
    outbox.add("a", status(TaskState.ACCEPTED))
    outbox.add("a", status(TaskState.PREPARING))
    outbox.add("b", status(TaskState.ACCEPTED))
    first = await outbox.next_batch()
    assert [(u.task_id, u.status.state) for u in first.updates] == [("a", 320), ("b", 256)]
    outbox.add("a", status(TaskState.RUNNING))
    second = await outbox.next_batch()
    await outbox.acknowledged(first.sequence)
    assert (await agent.load()).unacknowledged == ("a",)  # "b" is done with, "a" moved on
    outbox.begin_session()  # the second batch was never acknowledged
    again = await outbox.next_batch()
    assert (again.sequence, [u.task_id for u in again.updates]) == (1, ["a"])
    assert [u.task_id for u in second.updates] == ["a"]
    await outbox.acknowledged(again.sequence)
    assert (await agent.load()).unacknowledged == ()
    outbox.forget("a")
    outbox.add("c", status(TaskState.ACCEPTED))
    await outbox.next_batch()
    assert sorted((await agent.load()).statuses) == ["b", "c"]
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await agent.close()


async def test_a_write_without_room_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    refusals = []
    commit = module._commit

    def limited(connection: sqlite3.Connection, operations: object) -> None:
        try:
            commit(connection, operations)  # type: ignore[arg-type]
        except sqlite3.Error as error:
            refusals.append(error.sqlite_errorcode)
            raise

    monkeypatch.setattr(module, "_commit", limited)
    agent = await AgentStore.open(tmp_path / "agent.db")
    agent._connection.execute("PRAGMA max_page_count = 1")  # a full disk
    addresses = [f"192.0.2.{number}:2377" for number in range(2000)]
    waiting = asyncio.create_task(agent.write([put_managers(addresses)]))
    async with asyncio.timeout(20):
        while len(refusals) < 3:  # noqa: ASYNC110 - it has no event for a refusal
            await asyncio.sleep(0.01)
    assert set(refusals) == {sqlite3.SQLITE_FULL}
    assert not waiting.done()
    agent._connection.execute("PRAGMA max_page_count = 1000000")
    await waiting
    assert (await agent.load()).managers == tuple(addresses)
    await agent.close()


async def test_closing_does_not_wait_for_room(tmp_path: Path) -> None:
    agent = await AgentStore.open(tmp_path / "agent.db")
    agent._connection.execute("PRAGMA max_page_count = 1")
    waiting = asyncio.create_task(agent.write([put_managers(["192.0.2.1:2377"] * 2000)]))
    await asyncio.sleep(0)
    await agent.close()
    with pytest.raises(sqlite3.OperationalError, match="full"):
        await waiting

"""The agent's state on disk: assignments, unacknowledged statuses, network tables, where the managers are.

Everything that comes from the managers is written before it is acted upon, so that a restarted daemon, with no manager
in reach, goes on where it was. Writes that arrive while one is being synced become the next transaction together: a
hundred assignments are one message and one fsync, a hundred statuses a few.

SQLite (WAL, synchronous=FULL) in one thread of its own. A write that finds the disk full is made again until there is
room, and what depends on it waits. One that fails otherwise ends the daemon: going on would promise what is not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm.v1 import types_pb2
from pyswarm_common.codec import from_proto, to_proto
from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.model import Task, TaskStatus

from .core.tables import KnownTable

_log = logging.getLogger(__name__)

_RETRY_S = 1.0
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE tasks(id TEXT PRIMARY KEY, task BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE statuses(task_id TEXT PRIMARY KEY, status BLOB NOT NULL, acknowledged INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE networks(id TEXT PRIMARY KEY, version INTEGER NOT NULL, network BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE endpoints(network_id TEXT, id TEXT, record BLOB NOT NULL, PRIMARY KEY(network_id, id)) WITHOUT ROWID;
CREATE TABLE services(network_id TEXT, id TEXT, record BLOB NOT NULL, PRIMARY KEY(network_id, id)) WITHOUT ROWID;
CREATE TABLE facts(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""

Operation: TypeAlias = tuple[str, tuple[object, ...]]
"""One SQL statement and its parameters."""


@dataclass(frozen=True, slots=True)
class SavedState:
    """Everything that was kept."""

    tasks: dict[str, Task]
    statuses: dict[str, TaskStatus]
    unacknowledged: tuple[str, ...]
    tables: dict[str, KnownTable]
    ingress: pb.IngressTable | None
    managers: tuple[str, ...]
    seeds: tuple[str, ...]
    former_managers: tuple[str, ...]
    informants: tuple[str, ...]
    trust: pb.TrustUpdate


class AgentStore:
    """One connection, one thread, one transaction at a time."""

    def __init__(self, connection: sqlite3.Connection, thread: Executor) -> None:
        self._connection = connection
        self._thread = thread
        self._queue: list[Operation] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._writer: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @classmethod
    async def open(cls, path: Path) -> AgentStore:
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="agent-store")
        loop = asyncio.get_running_loop()
        return cls(await loop.run_in_executor(thread, connect, path), thread)

    async def load(self) -> SavedState:
        return await asyncio.get_running_loop().run_in_executor(self._thread, _load, self._connection)

    async def write(self, operations: Iterable[Operation]) -> None:
        """Returns when they are on disk."""
        self._queue.extend(operations)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all())
        await asyncio.shield(done)

    async def _write_all(self) -> None:
        while self._waiting:
            operations, self._queue = self._queue, []
            waiting, self._waiting = self._waiting, []
            try:
                await self._commit_when_there_is_room(operations)
            except sqlite3.Error as error:
                for future in waiting:
                    if not future.done():
                        future.set_exception(error)
            for future in waiting:
                if not future.done():
                    future.set_result(None)
        self._writer = None

    async def _commit_when_there_is_room(self, operations: Sequence[Operation]) -> None:
        loop, is_told = asyncio.get_running_loop(), False
        while True:
            try:
                return await loop.run_in_executor(self._thread, _commit, self._connection, operations)
            except sqlite3.Error as error:
                is_full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
                if not is_full or self._closing.is_set():
                    raise
            if not is_told:
                _log.error("the disk of the agent's state is full: what the managers say waits until there is room")
                is_told = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_S):
                    await self._closing.wait()

    async def close(self) -> None:
        self._closing.set()
        while self._writer is not None:
            await asyncio.shield(self._writer)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()


# ---------------------------------------------------------------- operations


def put_task(task: Task) -> Operation:
    return "INSERT OR REPLACE INTO tasks VALUES (?, ?)", (task.id, to_proto(task).SerializeToString())


def drop_task(task_id: str) -> Sequence[Operation]:
    """The assignment and what is left of its statuses: nobody asks for them any more."""
    return (
        ("DELETE FROM tasks WHERE id = ?", (task_id,)),
        drop_status(task_id),
    )


def drop_status(task_id: str) -> Operation:
    return "DELETE FROM statuses WHERE task_id = ?", (task_id,)


def put_status(task_id: str, status: TaskStatus) -> Operation:
    return "INSERT OR REPLACE INTO statuses VALUES (?, ?, 0)", (task_id, to_proto(status).SerializeToString())


def acknowledge_status(task_id: str, status: TaskStatus) -> Operation:
    """Only if no later one has taken its place."""
    content = to_proto(status).SerializeToString()
    return "UPDATE statuses SET acknowledged = 1 WHERE task_id = ? AND status = ?", (task_id, content)


def put_table(table: pb.NetworkTable) -> list[Operation]:
    """A complete table replaces what there was; an increment changes the rows it names."""
    out: list[Operation] = []
    if table.complete:
        out += drop_table(table.network_id)
        content = table.network.SerializeToString()
        out.append(("INSERT INTO networks VALUES (?, ?, ?)", (table.network_id, table.version, content)))
    else:
        out.append(("UPDATE networks SET version = ? WHERE id = ?", (table.version, table.network_id)))
    for kind, removed in (("endpoints", table.remove_endpoint_ids), ("services", table.remove_service_ids)):
        statement = f"DELETE FROM {kind} WHERE network_id = ? AND id = ?"  # noqa: S608 - two fixed names
        out += [(statement, (table.network_id, key)) for key in removed]
    out += [
        ("INSERT OR REPLACE INTO endpoints VALUES (?, ?, ?)", (table.network_id, r.endpoint_id, r.SerializeToString()))
        for r in table.endpoints
    ]
    out += [
        ("INSERT OR REPLACE INTO services VALUES (?, ?, ?)", (table.network_id, r.service_id, r.SerializeToString()))
        for r in table.services
    ]
    return out


def drop_table(network_id: str) -> list[Operation]:
    return [
        ("DELETE FROM networks WHERE id = ?", (network_id,)),
        ("DELETE FROM endpoints WHERE network_id = ?", (network_id,)),
        ("DELETE FROM services WHERE network_id = ?", (network_id,)),
    ]


def put_ingress(ingress: pb.IngressTable) -> Operation:
    return "INSERT OR REPLACE INTO facts VALUES ('ingress', ?)", (ingress.SerializeToString(),)


def put_managers(addresses: Sequence[str], seeds: Sequence[str] = (), informants: Sequence[str] = ()) -> Operation:
    content = pb.ManagerList(addresses=addresses, seeds=seeds, agent_addresses=informants).SerializeToString()
    return "INSERT OR REPLACE INTO facts VALUES ('managers', ?)", (content,)


def put_former_managers(addresses: Sequence[str]) -> Operation:
    content = pb.ManagerList(addresses=addresses).SerializeToString()
    return "INSERT OR REPLACE INTO facts VALUES ('former managers', ?)", (content,)


def put_trust(trust: pb.TrustUpdate) -> Operation:
    return "INSERT OR REPLACE INTO facts VALUES ('trust', ?)", (trust.SerializeToString(),)


# ---------------------------------------------------------------- in the thread


def connect(path: Path) -> sqlite3.Connection:
    """The database as it is used, made if it is not there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
    elif version != _SCHEMA_VERSION:
        connection.close()
        raise FailedPrecondition(
            f"{path} was written by a newer pyswarm: install that version, or leave and join again"
        )
    return connection


def _commit(connection: sqlite3.Connection, operations: Sequence[Operation]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement, parameters in operations:
            connection.execute(statement, parameters)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk may have ended it already
            connection.execute("ROLLBACK")
        raise


def _load(connection: sqlite3.Connection) -> SavedState:
    tasks = {
        key: from_proto(Task, types_pb2.Task.FromString(content))
        for key, content in connection.execute("SELECT id, task FROM tasks ORDER BY id")
    }
    statuses, unacknowledged = {}, []
    for key, content, acknowledged in connection.execute("SELECT * FROM statuses ORDER BY task_id"):
        statuses[key] = from_proto(TaskStatus, types_pb2.TaskStatus.FromString(content))
        if not acknowledged:
            unacknowledged.append(key)
    facts = dict(connection.execute("SELECT name, value FROM facts"))
    ingress = pb.IngressTable.FromString(facts["ingress"]) if "ingress" in facts else None
    trust = pb.TrustUpdate.FromString(facts.get("trust", b""))
    known = pb.ManagerList.FromString(facts.get("managers", b""))
    managers, seeds, tables = tuple(known.addresses), tuple(known.seeds), _load_tables(connection)
    former = tuple(pb.ManagerList.FromString(facts.get("former managers", b"")).addresses)
    informants, pending = tuple(known.agent_addresses), tuple(unacknowledged)
    return SavedState(tasks, statuses, pending, tables, ingress, managers, seeds, former, informants, trust)


def _load_tables(connection: sqlite3.Connection) -> dict[str, KnownTable]:
    tables = {
        key: KnownTable(types_pb2.Network.FromString(content), version, {}, {})
        for key, version, content in connection.execute("SELECT id, version, network FROM networks ORDER BY id")
    }
    for network_id, key, content in connection.execute("SELECT * FROM endpoints"):
        tables[network_id].endpoints[key] = pb.EndpointRecord.FromString(content)
    for network_id, key, content in connection.execute("SELECT * FROM services"):
        tables[network_id].services[key] = pb.ServiceRecord.FromString(content)
    return tables

"""The Backup service of one manager, and the parts behind it.

A backup is made here, by the manager that is asked; only the key's rotation is the leader's. Who may call is the
interceptor's decision (admins): everything here is worth as much as the root's key.
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from pyswarm.v1 import backup_pb2, backup_pb2_grpc
from pyswarm_common.backup.keys import KEY_BYTES, PassphraseParams, check_params, format_key, key_id
from pyswarm_common.codec import set_timestamp
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.ids import IdSource
from pyswarm_common.rpc import peer_of
from pyswarm_manager.api.caller import Context, caller_of, require_manager
from pyswarm_manager.api.calls import Calls
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.backup.automatic import AutomaticBackups
from pyswarm_manager.backup.contents import Captured
from pyswarm_manager.backup.directory import Kept
from pyswarm_manager.backup.key import require_key, rotated
from pyswarm_manager.backup.making import Maker, Part, SealedWith
from pyswarm_manager.ports import Clock, RaftPort
from pyswarm_manager.store.recording import describe
from pyswarm_manager.writes import FollowedStore, Writer

_log = logging.getLogger(__name__)
pb = backup_pb2


class BackupServicer(backup_pb2_grpc.BackupServicer):
    """Serves Backup; `run` makes the automatic ones meanwhile."""

    def __init__(
        self,
        store: FollowedStore,
        raft: RaftPort,
        forwarder: LeaderForwarder,
        ids: IdSource,
        clock: Clock,
        directory: Path,
    ) -> None:
        self._store, self._raft = store, raft
        self._calls = Calls("Backup", store, raft, forwarder)
        self._writer = Writer(store, raft, ids, clock)
        self._maker = Maker(store, raft, clock)
        self._automatic = AutomaticBackups(store, self._maker, directory, clock)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            await self._automatic.run()
        finally:
            self._maker.close()

    async def CreateBackup(
        self, request: pb.CreateBackupRequest, context: Context
    ) -> AsyncIterator[pb.CreateBackupResponse]:
        require_manager(peer_of(context), self._store.view.nodes)
        captured = await self._maker.capture()
        _log.info("a backup at index %d is made for %s", captured.index, _who(context))
        sealed_with = _sealed_with(request, captured)
        first = True
        async with contextlib.aclosing(self._maker.parts(captured, sealed_with)) as parts:
            async for part in parts:
                yield _message(part, captured, sealed_with, first)
                first = False

    async def ListBackups(self, request: pb.ListBackupsRequest, context: Context) -> pb.ListBackupsResponse:
        require_manager(peer_of(context), self._store.view.nodes)
        cluster, status = self._store.view.cluster, self._automatic.status
        response = pb.ListBackupsResponse(error=status.error, directory=str(self._automatic.directory))
        if cluster is not None:
            response.interval_s, response.kept = cluster.spec.backup_interval_s, cluster.spec.backups_kept
        if status.next_at:
            set_timestamp(response.next_at, status.next_at)
        if status.failed_at:
            set_timestamp(response.failed_at, status.failed_at)
        for kept in await self._automatic.list():
            _add(response, kept)
        return response

    async def GetBackupKey(self, request: pb.GetBackupKeyRequest, context: Context) -> pb.GetBackupKeyResponse:
        async def local() -> pb.GetBackupKeyResponse:
            await self._raft.read_barrier()
            if request.rotate:
                describe("the backup key was replaced")
            cluster = await rotated(self._writer) if request.rotate else self._store.view.cluster
            key = require_key(cluster)
            _log.info("the backup key %s was shown to %s", key_id(key), _who(context))
            return pb.GetBackupKeyResponse(key=format_key(key), key_id=key_id(key))

        return await self._calls.on_leader(
            context, "GetBackupKey", request, pb.GetBackupKeyResponse, local, is_read=not request.rotate
        )


def _who(context: Context) -> str:
    peer = caller_of(context)
    return peer.name or (f"node {peer.node_id}" if peer.node_id else "root on this machine")


def _sealed_with(request: pb.CreateBackupRequest, captured: Captured) -> SealedWith:
    if not request.HasField("passphrase"):
        return SealedWith(require_key(captured.cluster))
    given = request.passphrase
    params = PassphraseParams(given.salt, given.log2_n, given.r, given.p)
    check_params(params)
    if len(given.key) != KEY_BYTES:
        raise InvalidArgument(f"the key that follows from the passphrase must have {KEY_BYTES} bytes")
    return SealedWith(given.key, params)


def _message(part: Part, captured: Captured, sealed_with: SealedWith, first: bool) -> pb.CreateBackupResponse:
    message = pb.CreateBackupResponse(data=part.data, objects_done=part.objects_done, objects=len(captured.objects))
    if first:
        message.cluster_id, message.index = captured.cluster.id, captured.index
        message.key_id = "" if sealed_with.passphrase is not None else key_id(sealed_with.key)
    return message


def _add(response: pb.ListBackupsResponse, kept: Kept) -> None:
    backup = response.backups.add(path=str(kept.path), size_bytes=kept.size_bytes, error=kept.error)
    if kept.header is not None:
        backup.cluster_id, backup.index, backup.key_id = kept.header.cluster_id, kept.header.index, kept.header.key_id
        set_timestamp(backup.created_at, kept.header.created_at)

"""The Access service: people's tokens and certificates, and the log of what they changed.

Reads are answered from this manager's view; everything else is the leader's, so it goes through the forwarder.
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Protocol

from pyswarm.v1 import access_pb2, access_pb2_grpc
from pyswarm_common.codec import set_timestamp
from pyswarm_common.errors import Exhausted, FailedPrecondition
from pyswarm_common.ids import IdSource
from pyswarm_common.model.states import CredentialKind
from pyswarm_common.rpc import Peer
from pyswarm_manager.access import audit_query, credentials
from pyswarm_manager.access.limits import PerPeriod
from pyswarm_manager.api.caller import Context, caller_of, require_manager
from pyswarm_manager.api.calls import Calls
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.ports import Clock, RaftPort
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.trust import trusted_roots
from pyswarm_manager.writes import StorePort, Writer

pb = access_pb2
MAX_AUDIT_WATCHERS = 100
EXCHANGES_PER_MINUTE = 10


class AccessStore(StorePort, Protocol):
    """What Access needs of the store."""

    async def wait_audit(self, after_index: int) -> None: ...


class AccessServicer(access_pb2_grpc.AccessServicer):
    """Serves Access."""

    def __init__(
        self, store: AccessStore, raft: RaftPort, forwarder: LeaderForwarder, ids: IdSource, clock: Clock
    ) -> None:
        self._store, self._raft = store, raft
        self._calls = Calls("Access", store, raft, forwarder)
        self._writer = Writer(store, raft, ids, clock)
        self._watchers = 0
        refusal = "too many certificates were made from this token: use one until it expires, or wait a minute"
        self._exchanges = PerPeriod(time.monotonic, EXCHANGES_PER_MINUTE, 60.0, refusal)

    # ---- tokens

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenResponse:
        async def local() -> pb.CreateTokenResponse:
            credential, token = await credentials.create_token(self._writer, request)
            return pb.CreateTokenResponse(credential=credentials.to_message(credential), token=str(token))

        return await self._calls.on_leader(context, "CreateToken", request, pb.CreateTokenResponse, local)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensResponse:
        view = await self._calls.view(context, request.consistency)
        return pb.ListTokensResponse(credentials=_listed(view, CredentialKind.TOKEN))

    async def RemoveToken(self, request: pb.RemoveTokenRequest, context: Context) -> pb.RemoveTokenResponse:
        async def local() -> pb.RemoveTokenResponse:
            removed = await credentials.remove(self._writer, CredentialKind.TOKEN, request.token)
            return pb.RemoveTokenResponse(id=removed)

        return await self._calls.on_leader(context, "RemoveToken", request, pb.RemoveTokenResponse, local)

    async def ExchangeToken(self, request: pb.ExchangeTokenRequest, context: Context) -> pb.ExchangeTokenResponse:
        caller = caller_of(context)
        if not caller.caller.is_person or caller.fingerprint:
            raise FailedPrecondition("only an API token can be exchanged: send it over HTTPS, as the Bearer")

        async def local() -> pb.ExchangeTokenResponse:
            return await self._exchange(request, caller)

        return await self._calls.on_leader(context, "ExchangeToken", request, pb.ExchangeTokenResponse, local)

    async def _exchange(self, request: pb.ExchangeTokenRequest, caller: Peer) -> pb.ExchangeTokenResponse:
        self._exchanges.require_room(caller.credential_id)
        self._exchanges.add(caller.credential_id)
        certificate, expires_at = await credentials.exchange_token(self._writer, request, caller)
        response = pb.ExchangeTokenResponse(
            certificate=certificate, root_ca_cert=self._root(), manager_addresses=self._managers()
        )
        set_timestamp(response.expires_at, expires_at)
        return response

    # ---- client certificates

    async def CreateClientCertificate(
        self, request: pb.CreateClientCertificateRequest, context: Context
    ) -> pb.CreateClientCertificateResponse:
        async def local() -> pb.CreateClientCertificateResponse:
            credential, certificate = await credentials.create_certificate(self._writer, request)
            return pb.CreateClientCertificateResponse(
                credential=credentials.to_message(credential),
                certificate=certificate,
                root_ca_cert=self._root(),
                manager_addresses=self._managers(),
            )

        answer = pb.CreateClientCertificateResponse
        return await self._calls.on_leader(context, "CreateClientCertificate", request, answer, local)

    async def ListClientCertificates(
        self, request: pb.ListClientCertificatesRequest, context: Context
    ) -> pb.ListClientCertificatesResponse:
        view = await self._calls.view(context, request.consistency)
        return pb.ListClientCertificatesResponse(credentials=_listed(view, CredentialKind.CERTIFICATE))

    async def RemoveClientCertificate(
        self, request: pb.RemoveClientCertificateRequest, context: Context
    ) -> pb.RemoveClientCertificateResponse:
        async def local() -> pb.RemoveClientCertificateResponse:
            removed = await credentials.remove(self._writer, CredentialKind.CERTIFICATE, request.certificate)
            return pb.RemoveClientCertificateResponse(id=removed)

        answer = pb.RemoveClientCertificateResponse
        return await self._calls.on_leader(context, "RemoveClientCertificate", request, answer, local)

    # ---- the audit log

    async def ListAuditRecords(
        self, request: pb.ListAuditRecordsRequest, context: Context
    ) -> pb.ListAuditRecordsResponse:
        view = await self._calls.view(context, request.consistency)
        return audit_query.page(view.audit, request)

    async def WatchAuditRecords(
        self, request: pb.WatchAuditRecordsRequest, context: Context
    ) -> AsyncIterator[pb.WatchAuditRecordsResponse]:
        """A watcher that is slower than the ring sees a gap in the indexes' past, never a wrong order."""
        require_manager(caller_of(context), self._store.view.nodes)
        wanted = audit_query.record_filter(request.filter)
        if self._watchers >= MAX_AUDIT_WATCHERS:
            raise Exhausted(f"{MAX_AUDIT_WATCHERS} watches of the audit log are open on this manager: ask another one")
        position = request.after_index or self._store.view.index
        self._watchers += 1
        try:
            yield pb.WatchAuditRecordsResponse()
            while True:
                await self._store.wait_audit(position)
                news = audit_query.after(self._store.view.audit, position)
                position = news[-1].index
                found = [audit_query.to_message(record) for record in news if wanted(record)]
                for start in range(0, len(found), audit_query.MAX_PAGE):
                    yield pb.WatchAuditRecordsResponse(records=found[start : start + audit_query.MAX_PAGE])
        finally:
            self._watchers -= 1

    # ---- shared

    def _root(self) -> bytes:
        """Both roots while one replaces the other."""
        cluster = self._store.view.cluster
        return trusted_roots(cluster) if cluster is not None else b""

    def _managers(self) -> list[str]:
        return [member.address for member in self._raft.members.values()]


def _listed(view: Tables, kind: CredentialKind) -> list[pb.Credential]:
    found = sorted(credentials.credentials_of(view, kind), key=lambda item: (item.name, item.id))
    return [credentials.to_message(item) for item in found]

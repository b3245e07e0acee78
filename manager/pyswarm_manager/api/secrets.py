"""The Secrets API: every method for both kinds, on every manager; writes happen on the leader.

Decides what may be written: names, sizes, labels; what of a version may change (its labels, nothing else). A secret's
data is in no answer. Who acts next: services that follow a name are moved on by `files.upkeep`.
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from google.protobuf.message import Message
from msgspec.structs import replace

from pyswarm.v1 import secrets_pb2, secrets_pb2_grpc, types_pb2
from pyswarm_common.codec import to_proto
from pyswarm_common.errors import AlreadyExists, InvalidArgument
from pyswarm_common.ids import IdSource
from pyswarm_common.model import Config, FileSpec, Secret
from pyswarm_manager.api.caller import Context
from pyswarm_manager.api.calls import Calls
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.api.listing import fill_page, select
from pyswarm_manager.api.validate import decode, refuse
from pyswarm_manager.api.validate.fields import Violation, check_labels
from pyswarm_manager.files.versions import Versioned, latest, removal, rotated, users
from pyswarm_manager.ports import Clock, RaftPort
from pyswarm_manager.store.changes import Create, Update
from pyswarm_manager.store.lookup import find_config, find_secret
from pyswarm_manager.store.tables import Kind, Tables
from pyswarm_manager.writes import StorePort, Writer, check_read_version, retried

pb = secrets_pb2
R = TypeVar("R", bound=Message)

MAX_BYTES: Final = {Kind.SECRET: 500 * 1024, Kind.CONFIG: 1000 * 1024}
GOLANG: Final = "golang"
_BAD_NAME: Final = (
    "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]"
)
_NAME: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-_.]{0,62}[a-zA-Z0-9])?")


class SecretsServicer(secrets_pb2_grpc.SecretsServicer):
    """Serves Secrets."""

    def __init__(
        self, store: StorePort, raft: RaftPort, forwarder: LeaderForwarder, ids: IdSource, clock: Clock
    ) -> None:
        self._calls = Calls("Secrets", store, raft, forwarder)
        self._writer = Writer(store, raft, ids, clock)

    # ---- secrets

    async def CreateSecret(self, request: pb.CreateSecretRequest, context: Context) -> pb.CreateSecretResponse:
        async def local() -> pb.CreateSecretResponse:
            return pb.CreateSecretResponse(secret=shown(await create(self._writer, Kind.SECRET, Secret, request.spec)))

        return await self._calls.on_leader(context, "CreateSecret", request, pb.CreateSecretResponse, local)

    async def UpdateSecret(self, request: pb.UpdateSecretRequest, context: Context) -> pb.UpdateSecretResponse:
        async def local() -> pb.UpdateSecretResponse:
            changed = await _relabel(self._writer, find_secret, request.secret_id, request.version, request.spec)
            return pb.UpdateSecretResponse(secret=shown(changed))

        return await self._calls.on_leader(context, "UpdateSecret", request, pb.UpdateSecretResponse, local)

    async def RotateSecret(self, request: pb.RotateSecretRequest, context: Context) -> pb.RotateSecretResponse:
        async def local() -> pb.RotateSecretResponse:
            newest = await rotate(self._writer, Kind.SECRET, find_secret, request.secret, request.data)
            followers = users(self._writer.store.view, Kind.SECRET, newest.spec.name)
            return pb.RotateSecretResponse(secret=shown(newest), services=followers)

        return await self._calls.on_leader(context, "RotateSecret", request, pb.RotateSecretResponse, local)

    async def RemoveSecret(self, request: pb.RemoveSecretRequest, context: Context) -> pb.RemoveSecretResponse:
        async def local() -> pb.RemoveSecretResponse:
            removed = await remove(self._writer, Kind.SECRET, find_secret, request.secret)
            return pb.RemoveSecretResponse(secret_id=removed)

        return await self._calls.on_leader(context, "RemoveSecret", request, pb.RemoveSecretResponse, local)

    async def GetSecret(self, request: pb.GetSecretRequest, context: Context) -> pb.GetSecretResponse:
        view = await self._calls.view(context, request.consistency)
        return pb.GetSecretResponse(secret=shown(find_secret(view, request.secret)))

    async def ListSecrets(self, request: pb.ListSecretsRequest, context: Context) -> pb.ListSecretsResponse:
        view = await self._calls.view(context, request.options.consistency)
        response = pb.ListSecretsResponse()
        selected = select(view.secrets, request.options, lambda item: request.superseded or not item.superseded)
        _, response.next_page_token = fill_page(selected, request.options, response.secrets, shown)
        return response

    # ---- configs

    async def CreateConfig(self, request: pb.CreateConfigRequest, context: Context) -> pb.CreateConfigResponse:
        async def local() -> pb.CreateConfigResponse:
            return pb.CreateConfigResponse(config=shown(await create(self._writer, Kind.CONFIG, Config, request.spec)))

        return await self._calls.on_leader(context, "CreateConfig", request, pb.CreateConfigResponse, local)

    async def UpdateConfig(self, request: pb.UpdateConfigRequest, context: Context) -> pb.UpdateConfigResponse:
        async def local() -> pb.UpdateConfigResponse:
            changed = await _relabel(self._writer, find_config, request.config_id, request.version, request.spec)
            return pb.UpdateConfigResponse(config=shown(changed))

        return await self._calls.on_leader(context, "UpdateConfig", request, pb.UpdateConfigResponse, local)

    async def RotateConfig(self, request: pb.RotateConfigRequest, context: Context) -> pb.RotateConfigResponse:
        async def local() -> pb.RotateConfigResponse:
            newest = await rotate(self._writer, Kind.CONFIG, find_config, request.config, request.data)
            followers = users(self._writer.store.view, Kind.CONFIG, newest.spec.name)
            return pb.RotateConfigResponse(config=shown(newest), services=followers)

        return await self._calls.on_leader(context, "RotateConfig", request, pb.RotateConfigResponse, local)

    async def RemoveConfig(self, request: pb.RemoveConfigRequest, context: Context) -> pb.RemoveConfigResponse:
        async def local() -> pb.RemoveConfigResponse:
            removed = await remove(self._writer, Kind.CONFIG, find_config, request.config)
            return pb.RemoveConfigResponse(config_id=removed)

        return await self._calls.on_leader(context, "RemoveConfig", request, pb.RemoveConfigResponse, local)

    async def GetConfig(self, request: pb.GetConfigRequest, context: Context) -> pb.GetConfigResponse:
        view = await self._calls.view(context, request.consistency)
        return pb.GetConfigResponse(config=shown(find_config(view, request.config)))

    async def ListConfigs(self, request: pb.ListConfigsRequest, context: Context) -> pb.ListConfigsResponse:
        view = await self._calls.view(context, request.options.consistency)
        response = pb.ListConfigsResponse()
        selected = select(view.configs, request.options, lambda item: request.superseded or not item.superseded)
        _, response.next_page_token = fill_page(selected, request.options, response.configs, _without_data)
        return response


def shown(item: Versioned) -> Any:
    """For an answer: a secret without its data."""
    return _without_data(item) if isinstance(item, Secret) else to_proto(item)


def _without_data(item: Versioned) -> Any:
    return to_proto(replace(item, spec=replace(item.spec, data=b"")))


# ---- writes, on the leader

_Find = Callable[[Tables, str], Versioned]


async def create(writer: Writer, kind: Kind, make: Callable[..., Versioned], message: types_pb2.FileSpec) -> Versioned:
    spec = decode(FileSpec, message)
    refuse(_check(kind, spec))
    if latest(writer.store.view, kind, spec.name) is not None:
        raise AlreadyExists(f"{kind.value} {spec.name} already exists")
    made = make(id=writer.ids(), spec=spec, number=1)
    await writer.store.propose([Create(made)])
    found: Versioned = writer.store.view.table(kind).get(made.id, made)
    return found


def _check(kind: Kind, spec: FileSpec) -> Iterator[Violation]:
    if _NAME.fullmatch(spec.name) is None:
        yield "name", _BAD_NAME
    yield from check_labels(spec.labels)
    if spec.templating not in ("", GOLANG):
        yield "templating", f'unknown template driver "{spec.templating}": there is only {GOLANG}'
    yield from _check_data(kind, spec.data)


def _check_data(kind: Kind, data: bytes) -> Iterator[Violation]:
    limit = MAX_BYTES[kind]
    if not 0 < len(data) <= limit:
        yield "data", f"{kind.value} data must be larger than 0 and less than {limit} bytes"


async def rotate(writer: Writer, kind: Kind, find: _Find, reference: str, data: bytes) -> Versioned:
    refuse(_check_data(kind, data))

    async def attempt() -> Versioned:
        current = find(writer.store.view, reference)
        changes = rotated(current, writer.ids(), data)
        if current.spec.data == data:
            return current
        await writer.store.propose(changes)
        newest = latest(writer.store.view, kind, current.spec.name)
        return current if newest is None else newest

    return await retried(attempt)


async def _relabel(writer: Writer, find: _Find, object_id: str, version: int, message: types_pb2.FileSpec) -> Versioned:
    spec = decode(FileSpec, message)
    refuse(check_labels(spec.labels))

    async def attempt() -> Versioned:
        current = find(writer.store.view, object_id)
        check_read_version("object", current.id, current.meta.version, version, current.meta.version)
        if spec.name != current.spec.name or spec.templating != current.spec.templating:
            raise InvalidArgument("only updates to Labels are allowed; for new data make the next version (rotate)")
        changed = replace(current, spec=replace(current.spec, labels=spec.labels))
        await writer.store.propose([Update(changed)])
        return changed

    return await retried(attempt)


async def remove(writer: Writer, kind: Kind, find: _Find, reference: str) -> str:
    async def attempt() -> str:
        found = find(writer.store.view, reference)
        await writer.store.propose(removal(writer.store.view, kind, found))
        return found.id

    return await retried(attempt)

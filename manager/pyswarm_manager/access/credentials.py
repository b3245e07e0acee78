"""Tokens and client certificates of people, on the leader: made, exchanged, removed.

Decides what a credential may be (name, role, lifetime, number). A token's secret leaves in the one answer that makes
it; the store keeps its hash. Of a certificate the store keeps the hash of its key, so that only the one that was issued
fits. What has expired is swept away when the next one is made. Who acts next: `access.admission`, at each call.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pyswarm.v1 import access_pb2
from pyswarm_common.codec import set_timestamp
from pyswarm_common.errors import Exhausted, InvalidArgument, NotFound, Unauthenticated
from pyswarm_common.identity.authority import public_key_of_csr
from pyswarm_common.identity.people import ApiToken, is_person_name, key_fingerprint, person_subject
from pyswarm_common.model import Cluster
from pyswarm_common.model.objects import Credential
from pyswarm_common.model.states import CredentialKind, PersonRole
from pyswarm_common.rpc import Peer
from pyswarm_manager.access.admission import UNKNOWN_CREDENTIAL
from pyswarm_manager.api.validate import refuse
from pyswarm_manager.store.changes import Change, Create, delete
from pyswarm_manager.store.recording import asked_by, describe
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.trust import signing_authority
from pyswarm_manager.writes import Writer, retried

MAX_CREDENTIALS = 1_000
MAX_CSR_BYTES = 16 * 1024
DEFAULT_CERTIFICATE_LIFETIME_S = 90 * 86_400.0
MAX_LIFETIME_S = 10 * 365 * 86_400.0
MIN_LIFETIME_S = 60.0
EXCHANGED_LIFETIME_S = 3_600.0
_WORDS = {CredentialKind.TOKEN: "token", CredentialKind.CERTIFICATE: "client certificate"}


async def create_token(writer: Writer, request: access_pb2.CreateTokenRequest) -> tuple[Credential, ApiToken]:
    """A new token; the only time that it is seen."""
    _check(request.name, request.role, request.lifetime_s)
    token = ApiToken.generate(writer.ids())
    now = writer.clock()
    credential = Credential(
        id=token.id,
        kind=CredentialKind.TOKEN,
        name=request.name,
        role=PersonRole(request.role),
        digest=token.digest,
        expires_at=now + request.lifetime_s if request.lifetime_s else 0.0,
        created_by=_asker(),
    )
    return await _add(writer, credential), token


async def create_certificate(
    writer: Writer, request: access_pb2.CreateClientCertificateRequest
) -> tuple[Credential, bytes]:
    """A new certificate for the request's key; its private half never leaves who asks."""
    lifetime_s = request.lifetime_s or DEFAULT_CERTIFICATE_LIFETIME_S
    _check(request.name, request.role, lifetime_s)
    fingerprint = _fingerprint(request.csr)
    cluster, now = _cluster(writer), writer.clock()
    credential = Credential(
        id=writer.ids(),
        kind=CredentialKind.CERTIFICATE,
        name=request.name,
        role=PersonRole(request.role),
        digest=bytes.fromhex(fingerprint),
        expires_at=now + lifetime_s,
        created_by=_asker(),
    )
    certificate = _sign(cluster, request.csr, credential, now, lifetime_s)
    return await _add(writer, credential), certificate


async def exchange_token(writer: Writer, request: access_pb2.ExchangeTokenRequest, caller: Peer) -> tuple[bytes, float]:
    """A certificate for the token's holder, and when it ends: with the token at the latest."""
    credential = writer.store.view.credentials.get(caller.credential_id)
    if credential is None or credential.kind is not CredentialKind.TOKEN:
        raise Unauthenticated(UNKNOWN_CREDENTIAL)
    if not 0.0 <= request.lifetime_s < math.inf:
        raise InvalidArgument("invalid lifetime", [("lifetime_s", "must be a number of seconds")])
    _fingerprint(request.csr)
    now = writer.clock()
    lifetime_s = min(request.lifetime_s or EXCHANGED_LIFETIME_S, EXCHANGED_LIFETIME_S)
    if credential.expires_at:
        lifetime_s = min(lifetime_s, credential.expires_at - now)
    certificate = _sign(_cluster(writer), request.csr, credential, now, max(lifetime_s, 1.0))
    describe("a client certificate was made from the token")
    await writer.store.propose([])
    return certificate, now + lifetime_s


async def remove(writer: Writer, kind: CredentialKind, reference: str) -> str:
    async def attempt() -> str:
        credential = find_credential(writer.store.view, kind, reference)
        await writer.store.propose([delete(credential)])
        return credential.id

    return await retried(attempt)


def find_credential(view: Tables, kind: CredentialKind, reference: str) -> Credential:
    """By id, name, or the unambiguous beginning of its id."""
    word = _WORDS[kind]
    if not reference:
        raise InvalidArgument(f"which {word}? give its id or name")
    candidates = list(credentials_of(view, kind))
    found = [item for item in candidates if reference in (item.id, item.name)]
    found = found or [item for item in candidates if item.id.startswith(reference)]
    if not found:
        raise NotFound(f"{word} {reference[:80]} not found")
    if len(found) > 1:
        raise InvalidArgument(f"{word} {reference} is ambiguous ({len(found)} matches found): give more of the id")
    return found[0]


def credentials_of(view: Tables, kind: CredentialKind) -> Iterator[Credential]:
    return (item for item in view.credentials.values() if item.kind is kind)


def to_message(credential: Credential) -> access_pb2.Credential:
    """For the wire: without the hash."""
    message = access_pb2.Credential(
        id=credential.id,
        name=credential.name,
        role=access_pb2.PersonRole.ValueType(credential.role),
        created_by=credential.created_by,
    )
    set_timestamp(message.created_at, credential.meta.created_at)
    if credential.expires_at:
        set_timestamp(message.expires_at, credential.expires_at)
    return message


def _check(name: str, role: int, lifetime_s: float) -> None:
    violations = []
    if not is_person_name(name):
        violations.append(("name", f"{name[:70]!r} is not a name: letters, digits and _.@- inside, 64 at most"))
    if role not in {int(known) for known in PersonRole}:
        violations.append(("role", "role must be viewer, operator or admin"))
    if lifetime_s != 0.0 and not MIN_LIFETIME_S <= lifetime_s <= MAX_LIFETIME_S:
        violations.append(("lifetime_s", "the lifetime must be between a minute and ten years"))
    refuse(violations)


async def _add(writer: Writer, credential: Credential) -> Credential:
    view = writer.store.view
    expired: list[Change] = [
        delete(item) for item in view.credentials.values() if 0.0 < item.expires_at <= writer.clock()
    ]
    if len(view.credentials) - len(expired) >= MAX_CREDENTIALS:
        raise Exhausted(f"there are {MAX_CREDENTIALS} tokens and client certificates: remove those not needed")
    await writer.store.propose([*expired, Create(credential)])
    return writer.store.view.credentials.get(credential.id, credential)


def _asker() -> str:
    record = asked_by()
    return f"{record.actor_kind} {record.actor}" if record is not None else ""


def _cluster(writer: Writer) -> Cluster:
    cluster = writer.store.view.cluster
    if cluster is None:
        raise NotFound("this manager does not know its swarm yet: try again in a moment")
    return cluster


def _fingerprint(csr: bytes) -> str:
    """Of the request's key, whose private half the requester has proved to hold."""
    if len(csr) > MAX_CSR_BYTES:
        raise InvalidArgument("the certificate signing request is too large")
    try:
        return key_fingerprint(public_key_of_csr(csr))
    except InvalidArgument:
        raise
    except Exception as error:  # the X.509 parser raises many things for many kinds of rubbish
        raise InvalidArgument("not a certificate signing request in PEM form") from error


def _sign(cluster: Cluster, csr: bytes, credential: Credential, now: float, lifetime_s: float) -> bytes:
    authority = signing_authority(cluster)
    subject = person_subject(credential.role, credential.name, cluster.id, credential.id)
    try:
        return authority.issue_person(csr, subject, now=now, lifetime_s=lifetime_s)
    except ValueError as error:
        raise InvalidArgument("the certificate signing request cannot be used") from error

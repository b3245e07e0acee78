"""What the managers know of each node's certificate: written down from what the node shows when it opens a session.

So a certificate counts only once its node has it and uses it. Many sessions opened at once become few change sets.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from cryptography import x509
from msgspec.structs import replace

from pyswarm_common.errors import NotFound, OutOfSequence, PyswarmError, Unavailable, Unknown
from pyswarm_common.identity import issuer_of
from pyswarm_common.model import CertificateStatus, Node
from pyswarm_manager.store.changes import Update
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.writes import StorePort

_log = logging.getLogger(__name__)

BATCH = 200
_PAUSE_S = 0.02
_SAME_EXPIRY_S = 60.0
_REFUSED_PAUSE_S = 1.0


class CertificateSink(Protocol):
    """Who is told of a certificate that a node has shown."""

    def seen(self, node_id: str, cert_pem: bytes) -> None: ...


class CertificateBook:
    """One per manager; `run` it while it leads."""

    def __init__(self, store: StorePort) -> None:
        self._store = store
        self._news: dict[str, tuple[str, float]] = {}
        """Node id -> (issuer, expiry) that are not written down yet: one per node of the cluster at most."""
        self._wake = asyncio.Event()
        self._batch = BATCH

    def seen(self, node_id: str, cert_pem: bytes) -> None:
        shown = issuer_of(cert_pem), x509.load_pem_x509_certificate(cert_pem).not_valid_after_utc.timestamp()
        node = self._store.view.nodes.get(node_id)
        if node is not None and not _is_known(node.certificate, shown):
            self._news[node_id] = shown
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled, or leadership is lost."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._news:
                await self._write(tuple(self._news)[: self._batch])

    async def _write(self, node_ids: tuple[str, ...]) -> None:
        news = {node_id: self._news[node_id] for node_id in node_ids}
        view = self._store.view
        changes = [Update(node) for node_id in news if (node := _told(view, node_id, news[node_id])) is not None]
        try:
            if changes:
                await self._store.propose(changes)
        except (OutOfSequence, NotFound):  # a node changed or went meanwhile: look again
            self._batch = max(1, self._batch // 2)
            await asyncio.sleep(_PAUSE_S)
            return
        except (Unavailable, Unknown):
            raise  # leadership is lost: the nodes open sessions with the next leader
        except PyswarmError as error:
            _log.warning("what nodes' certificates say cannot be written down now: %s", error)
            await asyncio.sleep(_REFUSED_PAUSE_S)
            return
        self._batch = min(BATCH, self._batch * 2)
        for node_id, shown in news.items():
            if self._news.get(node_id) == shown:
                del self._news[node_id]


def _is_known(certificate: CertificateStatus, shown: tuple[str, float]) -> bool:
    """What was written down when it was given away differs by the time that took."""
    issuer, expires_at = shown
    return certificate.issuer == issuer and abs(certificate.expires_at - expires_at) < _SAME_EXPIRY_S


def _told(view: Tables, node_id: str, shown: tuple[str, float]) -> Node | None:
    """The node with what its certificate says; None if that is known, or nobody's."""
    node = view.nodes.get(node_id)
    if node is None or node.certificate.is_void:
        return None
    issuer, expires_at = shown
    old = node.certificate
    renew_from = "" if issuer == old.renew_from else old.renew_from
    new = CertificateStatus(issuer=issuer, expires_at=expires_at, renew_from=renew_from)
    return replace(node, certificate=new) if new != old else None

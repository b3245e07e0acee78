"""The node's identity while the daemon runs: the one on disk, replaced as a whole when it is renewed.

An identity that is not the one `node.json` speaks of is refused before anything is started with it: a daemon that went
on would act on one cluster's state with another cluster's rights.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from cryptography import x509

from pyswarm_common.errors import FailedPrecondition, PyswarmError
from pyswarm_common.identity import NodeIdentity, key_from_pem
from pyswarm_common.identity.locks import Locked, WrongKey

from .machine_lock import FILE as LOCK_FILE
from .machine_lock import MachineLock
from .paths import NodeRecord, Options


class CurrentIdentity:
    """Call it for the identity of the moment."""

    def __init__(self, directory: Path, identity: NodeIdentity, lock: MachineLock | None = None) -> None:
        self._directory = directory
        self._identity = identity
        self._lock = lock or MachineLock(directory)

    @classmethod
    def load(cls, options: Options, record: NodeRecord, lock: MachineLock | None = None) -> CurrentIdentity:
        """Raises FailedPrecondition if there is none, or if it is not this node's. It may be locked."""
        lock = lock or MachineLock(options.certificates)
        _finish_replacing(options.certificates)
        identity = NodeIdentity.load(options.certificates)
        if identity is None:
            raise FailedPrecondition(
                f"the node's certificate is missing in {options.certificates}: put it back, or {_start_anew(options)}"
            )
        if not lock.is_locked:
            identity = _opened(identity, lock, options)
        _check_whole(identity, options)
        _check_belongs(identity, record, options)
        return cls(options.certificates, identity, lock)

    def __call__(self) -> NodeIdentity:
        """Raises Locked before `unlock`."""
        if self._identity.is_locked or self._lock.is_locked:
            raise Locked
        return self._identity

    @property
    def certified(self) -> NodeIdentity:
        """Who this node is; its key may be locked."""
        return self._identity

    def unlock(self) -> None:
        """The lock was opened. Raises FailedPrecondition, and stays locked, if the key is not what was locked."""
        try:
            self._identity = self._identity.unlocked(self._lock.master)
        except WrongKey:
            self._lock.forget()
            raise FailedPrecondition(
                f"the locked key in {self._directory} is damaged: put it back, or leave the swarm with "
                "`pyswarm leave --force` and join again"
            ) from None

    def relock(self) -> None:
        """The key on the disk is to be locked, if it is not."""
        if not self._on_disk().is_locked:
            self._write(self._identity)

    def open_for_good(self) -> None:
        """The key on the disk is not to be locked any more."""
        if self._on_disk().is_locked:
            self._write(self._identity, opened=True)

    def _on_disk(self) -> NodeIdentity:
        identity = NodeIdentity.load(self._directory)
        assert identity is not None, "a member has a certificate"
        return identity

    def replace(self, identity: NodeIdentity) -> None:
        """On disk first, so that a manager that is told to reload finds it."""
        self._write(identity)
        self._identity = identity

    def _write(self, identity: NodeIdentity, *, opened: bool = False) -> None:
        identity.locked(None if opened else self._lock.master).save(_next(self._directory))
        _finish_replacing(self._directory)


def _next(directory: Path) -> Path:
    return directory / "next"


def _finish_replacing(directory: Path) -> None:
    """Key and certificate are two files: a crash between them is made up for from the whole set beside them."""
    identity = NodeIdentity.load(_next(directory))
    if identity is not None:  # its certificate was written last, so all of it is there
        identity.save(directory)
    shutil.rmtree(_next(directory), ignore_errors=True)


def _opened(identity: NodeIdentity, lock: MachineLock, options: Options) -> NodeIdentity:
    try:
        return identity.unlocked(lock.master)
    except PyswarmError:
        raise FailedPrecondition(
            f"the key in {options.certificates} is locked and its lock is missing: put {LOCK_FILE} back, or "
            f"{_start_anew(options)}"
        ) from None


def _check_whole(identity: NodeIdentity, options: Options) -> None:
    try:
        certified = x509.load_pem_x509_certificate(identity.cert_pem).public_key()
        # A locked key is compared when it is unlocked.
        fits = identity.is_locked or certified == key_from_pem(identity.key_pem).public_key()
    except (ValueError, PyswarmError) as error:
        raise FailedPrecondition(
            f"the files in {options.certificates} are damaged ({error}): put them back, or {_start_anew(options)}"
        ) from error
    if not fits:
        raise FailedPrecondition(
            f"key and certificate in {options.certificates} do not belong together: put them back, or "
            f"{_start_anew(options)}"
        )


def _check_belongs(identity: NodeIdentity, record: NodeRecord, options: Options) -> None:
    for what, certified, recorded in (
        ("cluster", identity.cluster_id, record.cluster_id),
        ("node", identity.node_id, record.node_id),
    ):
        if certified != recorded:
            raise FailedPrecondition(
                f"the certificate in {options.certificates} is of another {what} ({certified}) than {options.record} "
                f"({recorded}): put back the files of this node, or {_start_anew(options)}"
            )


def _start_anew(options: Options) -> str:
    return f"remove {options.record} to leave that cluster behind, then start pyswarmd and join again"

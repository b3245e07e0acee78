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

from .paths import NodeRecord, Options


class CurrentIdentity:
    """Call it for the identity of the moment."""

    def __init__(self, directory: Path, identity: NodeIdentity) -> None:
        self._directory = directory
        self._identity = identity

    @classmethod
    def load(cls, options: Options, record: NodeRecord) -> CurrentIdentity:
        """Raises FailedPrecondition if there is none, or if it is not this node's."""
        _finish_replacing(options.certificates)
        identity = NodeIdentity.load(options.certificates)
        if identity is None:
            raise FailedPrecondition(
                f"the node's certificate is missing in {options.certificates}: put it back, or {_start_anew(options)}"
            )
        _check_whole(identity, options)
        _check_belongs(identity, record, options)
        return cls(options.certificates, identity)

    def __call__(self) -> NodeIdentity:
        return self._identity

    def replace(self, identity: NodeIdentity) -> None:
        """On disk first, so that a manager that is told to reload finds it."""
        identity.save(_next(self._directory))
        _finish_replacing(self._directory)
        self._identity = identity


def _next(directory: Path) -> Path:
    return directory / "next"


def _finish_replacing(directory: Path) -> None:
    """Key and certificate are two files: a crash between them is made up for from the whole set beside them."""
    identity = NodeIdentity.load(_next(directory))
    if identity is not None:  # its certificate was written last, so all of it is there
        identity.save(directory)
    shutil.rmtree(_next(directory), ignore_errors=True)


def _check_whole(identity: NodeIdentity, options: Options) -> None:
    try:
        certified = x509.load_pem_x509_certificate(identity.cert_pem).public_key()
        fits = certified == key_from_pem(identity.key_pem).public_key()
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

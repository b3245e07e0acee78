"""No exception, log line or debugger prints a key: the `repr` of what holds one, and texts that quote one."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import io
import logging
import pkgutil
import re
from collections.abc import Iterator

import msgspec
import pytest

import pyswarm_cli
import pyswarm_common
import pyswarm_manager
import pyswarm_node
import pyswarm_overlay
import pyswarm_runtime
import pyswarm_worker
from pyswarm_cli.parse.docker_config import _Auth, _HelperAnswer
from pyswarm_common.backup.keys import PassphraseParams, format_key
from pyswarm_common.daemon_logs import tame_logs
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.identity.authority import RootAuthority
from pyswarm_common.identity.credentials import NodeIdentity
from pyswarm_common.identity.locks import LockKey
from pyswarm_common.identity.people import ApiToken
from pyswarm_common.identity.tokens import JoinToken
from pyswarm_common.model import Cluster, ContainerSpec, FileSpec, JoinTokens, Node
from pyswarm_common.model.objects import RootRotation
from pyswarm_common.secrecy import HIDDEN, masked, shown_without
from pyswarm_manager.backup.contents import Captured
from pyswarm_manager.backup.making import SealedWith
from pyswarm_manager.bootstrap import Bootstrap
from pyswarm_manager.keyring import DataKey, Keyring
from pyswarm_manager.raft.core.types import Entry, EntryKind, Snapshot
from pyswarm_manager.store.changes import ChangeSet, Create, Event
from pyswarm_manager.store.tables import Tables
from pyswarm_overlay.encryption.core.peers import OwnKey
from pyswarm_overlay.encryption.core.wireguard import Device, DeviceChange, FoundDevice
from pyswarm_overlay.encryption.keys import SavedKey
from pyswarm_runtime.registry_auth import Credentials
from pyswarm_worker.core.materials import File, Materials

PACKAGES = (
    pyswarm_common,
    pyswarm_manager,
    pyswarm_node,
    pyswarm_worker,
    pyswarm_cli,
    pyswarm_overlay,
    pyswarm_runtime,
)
RAW = bytes(range(40, 72))
TEXT = "zq5k1w8s0m4v7c2x9b3n6j1h8"
ROOT = RootAuthority.create("cluster", 1_800_000_000.0)
DIGEST = JoinToken.generate(ROOT.cert_pem).digest
TOKENS = JoinTokens(worker=f"SWMTKN-1-{DIGEST}-{TEXT}", manager=f"SWMTKN-1-{DIGEST}-{TEXT}")
CLUSTER = Cluster(
    id="c",
    root_ca_cert=ROOT.cert_pem,
    root_ca_key=RAW,
    join_tokens=TOKENS,
    backup_key=RAW,
    root_rotation=RootRotation(root_ca_key=RAW, root_ca_cert=ROOT.cert_pem),
    unlock_key=RAW,
)
IDENTITY = NodeIdentity(ROOT.cert_pem, RAW, ROOT.cert_pem)
TABLES = Tables(index=1)
TABLES.put(CLUSTER)
NODE = Node(id="n")
HOLDERS = (
    CLUSTER,
    TOKENS,
    CLUSTER.root_rotation,
    IDENTITY,
    dataclasses.replace(ROOT, key_pem=RAW),
    LockKey(RAW),
    ApiToken("id", TEXT),
    JoinToken(DIGEST, TEXT),
    SealedWith(RAW, PassphraseParams(b"salt")),
    DataKey(1, RAW, 0.0),
    Keyring(1, 0, (DataKey(1, RAW, 0.0),)),
    Bootstrap(CLUSTER, NODE),
    Entry(1, 1, EntryKind.NORMAL, b"x" + RAW),
    Snapshot(1, 1, data=b"x" + RAW),
    Captured(1, 1, CLUSTER, (CLUSTER,), ()),
    ChangeSet((Create(CLUSTER),), 0.0),
    ContainerSpec(registry_auth=RAW),
    FileSpec(name="password", data=RAW),
    Credentials("user", TEXT, TEXT, TEXT, TEXT),
    _Auth(TEXT, "user", TEXT, TEXT, TEXT),
    _HelperAnswer("user", TEXT),
    File("/run/secrets/password", RAW, 0, 0, 0o400),
    Materials((File("/run/secrets/password", RAW, 0, 0, 0o400),), (f"PASSWORD={TEXT}",)),
    Event(CLUSTER, CLUSTER),
    TABLES,
    OwnKey(1, 0, RAW, b"public", 51820, 0.0),
    SavedKey(number=1, slot=0, private=RAW, port=51820, made_at=0.0),
    Device(RAW, 51820, {}),
    FoundDevice(RAW),
    DeviceChange(RAW),
)
_SUSPICIOUS = re.compile(r"(^|_)(key|keys|secret|token|tokens|password|passphrase|master|unlock)($|_)")
NO_SECRETS = {
    "Header.key_id": "an id, made to tell keys apart",
    "Header.passphrase": "how a key follows from a passphrase",
    "CertifiedNode.key": "a public key",
    "Node.key_digests": "hashes of public keys",
    "LimitedJoinToken.secret_hash": "the hash of 128 random bits",
    "_Objects.join_token": "objects with hashes",
    "_Create.join_token": "an object with a hash",
    "_Update.join_token": "an object with a hash",
    "_Objects.secret": "an object that hides its data itself",
    "_Create.secret": "the same",
    "_Update.secret": "the same",
    "_Calls.tokens": "a bucket that limits a rate",
    "Taint.key": "a word that the operator names a taint by",
    "Toleration.key": "the same word",
    "Constraint.key": "what a placement constraint looks at",
    "ClusterSpec.tunnel_key_rotation_s": "a time",
    "TunnelKey.public_key": "a public key",
    "NodeDescription.tunnel_keys": "objects with public keys",
    "TunnelPeer.keys": "the same",
    "Pair.public_key": "a public key",
    "PeerChange.public_key": "a public key",
    "Link.master": "a bridge",
    "LinkFacts.master": "a bridge",
    "VethEnd.master": "a bridge",
}


def forms(secret: bytes) -> Iterator[str]:
    yield repr(secret)[2:-1]
    yield str(list(secret))[1:-1]
    yield secret.hex()


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: type(holder).__name__)
def test_what_holds_a_secret_does_not_print_it(holder: object) -> None:
    for text in (repr(holder), f"{[holder]}", str(InvalidArgument(f"no: {holder!r}"))):
        assert TEXT not in text
        assert not any(form in text for form in forms(RAW))


def test_the_search_would_find_it() -> None:
    class Open(msgspec.Struct):
        key: bytes
        token: str

    text = repr(Open(RAW, TEXT))
    assert TEXT in text
    assert any(form in text for form in forms(RAW))


def test_the_rest_is_shown() -> None:
    shown = repr(CLUSTER)
    assert shown.startswith("Cluster(id='c', ")
    assert f"root_ca_key={HIDDEN}" in shown
    assert "encryption_epoch=0" in shown
    assert "unlock_key=b''" in repr(Cluster(id="c"))
    assert repr(Entry(3, 2, EntryKind.NORMAL, b"12345")) == "Entry(3, 2, <EntryKind.NORMAL: 1>, 5 bytes)"


def test_a_dataclass_may_use_it_too() -> None:
    @dataclasses.dataclass(frozen=True)
    class Login:
        name: str
        password: str

        def __repr__(self) -> str:
            return shown_without(self, "password")

    assert repr(Login("bob", TEXT)) == f"Login(name='bob', password={HIDDEN})"


def suspicious_fields() -> Iterator[tuple[type, str]]:
    """Every field of every struct, dataclass and named tuple of the product that sounds like a secret."""
    for package in PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__"):
                continue
            for item in vars(importlib.import_module(found.name)).values():
                if inspect.isclass(item) and item.__module__ == found.name:
                    names = [*getattr(item, "__struct_fields__", ()), *getattr(item, "__dataclass_fields__", ())]
                    names += getattr(item, "_fields", ()) if issubclass(item, tuple) else ()
                    yield from ((item, name) for name in names if _SUSPICIOUS.search(name))


def test_nothing_that_sounds_like_a_secret_was_forgotten() -> None:
    held = {type(holder) for holder in HOLDERS}
    found = {f"{item.__name__}.{name}" for item, name in suspicious_fields() if item not in held}
    assert found == set(NO_SECRETS), "hide it (secrecy.shown_without) and add it to HOLDERS, or say why it is no secret"


@pytest.mark.parametrize(
    ("secret", "kept"),
    [
        (f"SWMTKN-1-{DIGEST}-{TEXT}", f"SWMTKN-1-{DIGEST}-{HIDDEN}"),
        (f"SWMTKN-1-{DIGEST[:-1]}-{TEXT}x", f"SWMTKN-1-{DIGEST[:-1]}-{HIDDEN}"),
        (str(ApiToken("someid", TEXT)), f"PSWT-1-someid-{HIDDEN}"),
        (LockKey(RAW).token(), f"SWMKEY-1-{HIDDEN}"),
        (format_key(RAW), f"SWMBAK-1-{HIDDEN}"),
        (ROOT.key_pem.decode().strip(), f"-----BEGIN PRIVATE KEY-----{HIDDEN}"),
        (" ".join(ROOT.key_pem.decode().split()[:4]), f"-----BEGIN PRIVATE KEY-----{HIDDEN}"),
    ],
    ids=["join token", "long join token", "API token", "unlock key", "backup key", "PEM", "PEM on one line"],
)
def test_text_is_masked(secret: str, kept: str) -> None:
    assert masked(f"invalid address: {secret}") == f"invalid address: {kept}"


def test_other_text_is_left_alone() -> None:
    text = f"{DIGEST} SWMTKN PSWT-1 -----BEGIN CERTIFICATE----- n1-2 SWMKEY-"
    assert masked(text) == text


def test_logs_are_masked_with_their_tracebacks() -> None:
    root, written = logging.getLogger(), io.StringIO()
    before, handler = root.handlers[:], logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    root.handlers[:] = [handler]
    try:
        tame_logs()
        try:
            raise ValueError(TOKENS.worker)
        except ValueError:
            root.exception("joining with %s", TOKENS.manager)
    finally:
        root.handlers[:] = before
    assert written.getvalue().startswith(f"ERROR joining with SWMTKN-1-{DIGEST}-{HIDDEN}\nTraceback")
    assert f"ValueError: SWMTKN-1-{DIGEST}-{HIDDEN}" in written.getvalue()
    assert TEXT not in written.getvalue()

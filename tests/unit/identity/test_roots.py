"""CAs that operators bring: which are sound, and that rubbish is refused as such."""

from __future__ import annotations

import time

import pytest
from ca_makers import CLUSTER, MadeCa, identity, key_pem, make_ca, rsa_key
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.identity import RootAuthority, bundle, issuer_of, read_authority, read_bundle, roots_of
from pyswarm_common.identity.roots import MAX_PEM_BYTES, check_bridge


def read(*chain: MadeCa, key: bytes | None = None) -> RootAuthority:
    return read_authority(b"".join(made.pem for made in chain), key or chain[0].key_pem, time.time())


@pytest.mark.parametrize(
    "key", [None, ec.generate_private_key(ec.SECP384R1()), rsa_key()], ids=["P-256", "P-384", "RSA"]
)
def test_a_root_of_each_kind(key: object) -> None:
    made = make_ca("own", key=key)
    authority = read(made)
    assert (authority.cert_pem, authority.chain_pem) == (made.pem, b"")
    node = identity(authority, authority.cert_pem)
    x509.load_pem_x509_certificate(node.cert_pem).verify_directly_issued_by(made.certificate)
    assert issuer_of(node.cert_pem) == authority.issuer


def test_a_chain_is_given_away_with_each_certificate() -> None:
    root = make_ca("root")
    middle = make_ca("middle", root)
    signing = make_ca("signing", middle)
    authority = read(signing, middle, root)
    assert (authority.cert_pem, authority.chain_pem) == (root.pem, signing.pem + middle.pem)
    own, *rest = read_bundle(identity(authority, root.pem).cert_pem)
    own.verify_directly_issued_by(signing.certificate)
    assert rest == [signing.certificate, middle.certificate]


ROOT = make_ca("root")
WEAK = make_ca("weak", key=rsa_key(1024))
UNSOUND = {
    "no CA": ((make_ca("leaf", is_ca=False),), None, "is not the certificate of a CA"),
    "no constraints": ((make_ca("leaf", is_ca=None, usage=False),), None, "is not the certificate of a CA"),
    "another key": ((ROOT,), make_ca("other").key_pem, "does not fit"),
    "expired": ((make_ca("old", starts_in_s=-9000, ends_in_s=-60),), None, "has expired or will within a day"),
    "expires soon": ((make_ca("old", ends_in_s=3600),), None, "has expired or will within a day"),
    "not valid yet": ((make_ca("early", starts_in_s=3600),), None, "is not valid yet"),
    "weak RSA": ((WEAK,), None, "at least 2048 bits"),
    "another curve": ((make_ca("c", key=ec.generate_private_key(ec.SECP521R1())),), None, "P-256, ECDSA P-384 or RSA"),
    "no root at the end": ((make_ca("signing", ROOT),), None, "is not signed by"),
    "the wrong issuer": ((make_ca("signing", ROOT), make_ca("root")), None, "is not signed by"),
    "too short a path": (
        (make_ca("signing", ROOT), make_ca("other")),
        None,
        "is not signed by",
    ),
    "too long": ((ROOT,) * 5, None, "at most 4"),
}


@pytest.mark.parametrize(("chain", "key", "sentence"), UNSOUND.values(), ids=UNSOUND)
def test_what_is_not_sound(chain: tuple[MadeCa, ...], key: bytes | None, sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence):
        read(*chain, key=key)


def test_a_root_that_allows_no_chain() -> None:
    root = make_ca("strict", path_length=0)
    with pytest.raises(InvalidArgument, match="path length"):
        read(make_ca("signing", root), root)


@pytest.mark.parametrize("key", [b"", b"rubbish", key_pem(ROOT.key)[:-40]], ids=["none", "rubbish", "cut off"])
def test_a_key_that_is_none(key: bytes) -> None:
    with pytest.raises(InvalidArgument, match="not an unencrypted private key") as refused:
        read_authority(ROOT.pem, key, time.time())
    assert "rubbish" not in str(refused.value)


def test_an_encrypted_key_and_one_of_another_kind() -> None:
    locked = ROOT.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    with pytest.raises(InvalidArgument, match="unencrypted"):
        read_authority(ROOT.pem, locked, time.time())
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(InvalidArgument, match="must be ECDSA"):
        read_authority(ROOT.pem, other, time.time())


def test_what_cannot_follow_the_present_root() -> None:
    present = RootAuthority.create(CLUSTER, time.time())
    with pytest.raises(InvalidArgument, match="needs a new key"):
        check_bridge(present, present)
    old = read(make_ca("same", ski=False))
    with pytest.raises(InvalidArgument, match="nobody can tell the two apart"):
        check_bridge(old, read(make_ca("same", ski=False)))
    check_bridge(read(make_ca("same")), read(make_ca("same")))
    top = make_ca("top")
    below = read(make_ca("signing", top), top)
    check_bridge(present, below)
    with pytest.raises(InvalidArgument, match="may not certify"):
        check_bridge(read(make_ca("short", path_length=1)), below)


def test_bundles_hold_each_root_once_in_their_order() -> None:
    one, two = make_ca("one").pem, make_ca("two").pem
    assert roots_of(bundle(one, two, one, b"")) == (one, two)
    with pytest.raises(InvalidArgument, match="more than"):
        read_bundle(b" " * (MAX_PEM_BYTES + 1))


PEM_LIKE = st.binary(max_size=400).map(
    lambda body: b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n"
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=500), PEM_LIKE), st.binary(max_size=300))
def test_rubbish_is_refused(cert: bytes, key: bytes) -> None:
    for read_it in (lambda: read_authority(cert, ROOT.key_pem, 0.0), lambda: read_authority(ROOT.pem, key, 0.0)):
        with pytest.raises(InvalidArgument):
            read_it()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(ROOT.certificate.public_bytes(serialization.Encoding.DER)) - 1), st.integers(0, 255))
def test_a_certificate_with_a_changed_byte_is_refused(position: int, value: int) -> None:
    """Any byte of it: nothing else than a refusal comes of it, and never another certificate than the one signed."""
    der = bytearray(ROOT.certificate.public_bytes(serialization.Encoding.DER))
    if der[position] == value:
        return
    der[position] = value
    try:
        changed = x509.load_der_x509_certificate(bytes(der)).public_bytes(serialization.Encoding.PEM)
    except (ValueError, x509.InvalidVersion):
        return
    with pytest.raises(InvalidArgument):
        read_authority(changed, ROOT.key_pem, time.time())

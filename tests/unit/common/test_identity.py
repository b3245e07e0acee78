"""Keys, certificates and tokens."""

import base64
import stat
import time
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common import errors
from pyswarm_common.identity import JoinToken, NodeIdentity, RootAuthority, generate_key, key_to_pem, make_csr
from pyswarm_common.identity.tokens import root_digest
from pyswarm_common.ids import id_from_bits, is_id
from pyswarm_common.model import NodeRole

ROOT = RootAuthority.create("cluster", time.time())


def make_identity(role: NodeRole = NodeRole.WORKER) -> NodeIdentity:
    key = generate_key()
    cert = ROOT.issue(make_csr(key), node_id="node1", cluster_id="cluster", role=role, now=1e9, lifetime_s=60.0)
    return NodeIdentity(cert, key_to_pem(key), ROOT.cert_pem)


def test_certificate_says_who_and_what() -> None:
    identity = make_identity(NodeRole.MANAGER)
    assert (identity.node_id, identity.cluster_id, identity.role) == ("node1", "cluster", NodeRole.MANAGER)
    assert identity.validity[1] == 1e9 + 60


def test_saved_identity_is_private_and_reads_back(tmp_path: Path) -> None:
    identity = make_identity()
    identity.save(tmp_path / "certificates")
    assert NodeIdentity.load(tmp_path / "certificates") == identity
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "certificates").iterdir()}
    assert modes == {"node.crt": 0o600, "node.key": 0o600, "root-ca.crt": 0o600}


def test_no_identity_is_none(tmp_path: Path) -> None:
    assert NodeIdentity.load(tmp_path) is None


CSR_KEY = generate_key()
CSR_DER = base64.b64decode(b"".join(make_csr(CSR_KEY).splitlines()[1:-1]))


SIGNED = range(3, 3 + 2 + CSR_DER[4])  # the inner sequence; after it come the algorithm and the signature


@given(st.integers(0, len(CSR_DER) - 1), st.integers(1, 255))
def test_a_csr_with_any_byte_changed_is_refused_or_still_proves_its_key(position: int, flip: int) -> None:
    """A signature can be written in more than one way (unused bits); what it signs cannot."""
    der = bytearray(CSR_DER)
    der[position] ^= flip
    body = base64.encodebytes(bytes(der))
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"
    try:
        issued = ROOT.issue(pem, node_id="n", cluster_id="c", role=NodeRole.WORKER, now=0, lifetime_s=1)
    except errors.InvalidArgument:
        return
    assert position not in SIGNED
    assert x509.load_pem_x509_certificate(issued).public_key() == CSR_KEY.public_key()


def test_token_pins_the_root() -> None:
    token = JoinToken.generate(ROOT.cert_pem)
    assert token.digest == root_digest(ROOT.cert_pem)
    assert JoinToken.parse(f" {token}\n").matches(token)
    assert not JoinToken.generate(ROOT.cert_pem).matches(token)
    assert token.secret not in repr(token)


@given(st.text(max_size=120))
def test_anything_else_is_no_token(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="join token"):
        JoinToken.parse("SWMTKN-1-" + text.replace("-", "", 1))


@given(st.integers(0, 2**128 - 1))
def test_ids_have_the_form_of_ids(bits: int) -> None:
    assert is_id(id_from_bits(bits))

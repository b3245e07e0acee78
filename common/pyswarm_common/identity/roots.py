"""Roots that an operator brings, bundles of roots, and which CA signed a certificate.

Decides whether a CA is sound: it is one, its key fits, it is valid now and for a while, its chain leads to a
self-signed root. Parses what comes from outside, so everything is bounded and fails as InvalidArgument.
"""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.identity.authority import MIN_RSA_BITS, RootAuthority, SigningKey, signing_key_from_pem

MAX_PEM_BYTES = 64 * 1024
MAX_CHAIN = 4
MIN_REMAINING_S = 24 * 3600.0
_PEM = serialization.Encoding.PEM


def read_bundle(pem: bytes) -> list[x509.Certificate]:
    """Every certificate of a bundle. Raises InvalidArgument if there is none, or anything that cannot be read."""
    if len(pem) > MAX_PEM_BYTES:
        raise InvalidArgument(f"certificates of more than {MAX_PEM_BYTES} bytes")
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise InvalidArgument("not certificates in PEM form") from error


def bundle(*pems: bytes) -> bytes:
    """All of them, each once, in that order."""
    return b"".join(dict.fromkeys(pem.strip() + b"\n" for pem in pems if pem.strip()))


def roots_of(pem: bytes) -> tuple[bytes, ...]:
    """The certificates of a bundle one by one, in PEM."""
    return tuple(certificate.public_bytes(_PEM) for certificate in read_bundle(pem))


def issuer_of(cert_pem: bytes) -> str:
    """Key identifier (hex) of the CA that signed the certificate; empty if it does not say."""
    certificate = x509.load_pem_x509_certificate(cert_pem)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        return ""
    return (extension.value.key_identifier or b"").hex()


def read_authority(cert_pem: bytes, key_pem: bytes, now: float) -> RootAuthority:
    """The CA of an operator: its signing certificate first, then those up to and including the self-signed root."""
    if len(key_pem) > MAX_PEM_BYTES:
        raise InvalidArgument("the CA's key is too large")
    key = signing_key_from_pem(key_pem)
    try:
        return _authority(read_bundle(cert_pem), key, now)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:  # parts are read when asked
        raise InvalidArgument("the CA's certificates are damaged, or have something that cannot be read") from error


def _authority(chain: list[x509.Certificate], key: SigningKey, now: float) -> RootAuthority:
    if len(chain) > MAX_CHAIN:
        raise InvalidArgument(f"the CA's chain holds {len(chain)} certificates: at most {MAX_CHAIN} are allowed")
    if chain[0].public_key() != key.public_key():
        raise InvalidArgument("the key does not fit the CA's first certificate")
    for depth, certificate in enumerate(chain):
        _check_ca(certificate, depth, now)
    for certificate, issuer in pairwise([*chain, chain[-1]]):
        _check_signed(certificate, issuer)
    pems = [certificate.public_bytes(_PEM) for certificate in chain]
    pkcs8 = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return RootAuthority(pems[-1], pkcs8, b"".join(pems[:-1]))


def check_bridge(old: RootAuthority, new: RootAuthority) -> None:
    """Whether nodes that trust only the old root can believe the new one through a cross-signed certificate."""
    if old.signing_certificate.public_key() == new.signing_certificate.public_key():
        raise InvalidArgument("the new CA has the same key as the present one: a rotation needs a new key")
    if old.cert_pem == new.cert_pem:
        raise InvalidArgument("the new CA ends in the present root: a rotation needs another root")
    ours, theirs = _path(old), _path(new)
    names = {certificate.subject for certificate in ours} & {certificate.subject for certificate in theirs}
    if names and not all(_has_key_identifiers(certificate) for certificate in (*ours, *theirs)):
        raise InvalidArgument(
            f"{names.pop().rfc4514_string()[:120]!r} is a name in the present CA too, and without key identifiers in "
            "the certificates nobody can tell the two apart: give the new CA another name"
        )
    for depth, certificate in enumerate(ours):
        limit = _constraints(certificate).path_length
        if limit is not None and limit < len(theirs) + depth:
            raise InvalidArgument(
                f"the present CA may not certify one of {len(theirs)} certificates (its path length is {limit}): "
                "give a CA without intermediate certificates"
            )


def _path(authority: RootAuthority) -> list[x509.Certificate]:
    """The signing certificate first, the root last."""
    return read_bundle(authority.chain_pem + authority.cert_pem)


def _has_key_identifiers(certificate: x509.Certificate) -> bool:
    try:
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        if certificate.issuer != certificate.subject:
            certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    return True


def _constraints(certificate: x509.Certificate) -> x509.BasicConstraints:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise InvalidArgument(f"{_name(certificate)} is not the certificate of a CA") from error


def _check_ca(certificate: x509.Certificate, depth: int, now: float) -> None:
    constraints = _constraints(certificate)
    if not constraints.ca or not _may_sign(certificate):
        raise InvalidArgument(f"{_name(certificate)} is not the certificate of a CA")
    if constraints.path_length is not None and constraints.path_length < depth:
        raise InvalidArgument(f"{_name(certificate)} allows no chain as long as this one (its path length)")
    _check_key(certificate)
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    if certificate.not_valid_before_utc > moment:
        raise InvalidArgument(f"{_name(certificate)} is not valid yet")
    if certificate.not_valid_after_utc < moment + dt.timedelta(seconds=MIN_REMAINING_S):
        raise InvalidArgument(f"{_name(certificate)} has expired or will within a day")


def _check_key(certificate: x509.Certificate) -> None:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidArgument(f"the key of {_name(certificate)} is of an unknown kind") from error
    is_curve = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    if not is_curve and not (isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA_BITS):
        raise InvalidArgument(
            f"the key of {_name(certificate)} must be ECDSA P-256, ECDSA P-384 or RSA of at least {MIN_RSA_BITS} bits"
        )


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True  # without the extension every use is allowed
    except (x509.DuplicateExtension, ValueError):
        return False


def _check_signed(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise InvalidArgument(
            f"{_name(certificate)} is not signed by {_name(issuer)}: the file must hold the signing certificate, then "
            "each certificate that signed the one before, up to the self-signed root"
        ) from error


def _name(certificate: x509.Certificate) -> str:
    try:
        return repr(certificate.subject.rfc4514_string()[:120])
    except ValueError:
        return "a certificate"

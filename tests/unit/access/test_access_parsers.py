"""What comes from outside: tokens, headers, envelopes, JSON, certificates, metadata. Rubbish is refused."""

from __future__ import annotations

import json
import time

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.v1 import control_pb2
from pyswarm_common import errors
from pyswarm_common.identity import RootAuthority, generate_key, make_csr
from pyswarm_common.identity.people import ApiToken, is_person_name, person_subject, read_person
from pyswarm_common.model import NodeRole
from pyswarm_common.model.states import PersonRole
from pyswarm_common.rpc.refusals import RefusalLog
from pyswarm_manager.access.connect_protocol import (
    END_OF_STREAM,
    Codec,
    codec_of,
    end_of_stream,
    envelope,
    error_of,
    read_request_envelope,
    read_timeout_s,
)
from pyswarm_manager.access.limits import PerPeriod
from pyswarm_manager.access.tokens import network_of
from pyswarm_manager.api.caller import address_of

LIMIT = 1000
REFUSALS = (errors.InvalidArgument, errors.Exhausted, errors.Unsupported)
TOKEN_ID = "a" * 25


def near(text: str) -> st.SearchStrategy[str]:
    """The text with something cut out of it or put into it."""

    def bend(parts: tuple[int, int, str]) -> str:
        start, end = sorted(parts[:2])
        return text[:start] + parts[2] + text[end:]

    place = st.integers(0, len(text))
    return st.tuples(place, place, st.text(max_size=5)).map(bend)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=300), near(str(ApiToken.generate(TOKEN_ID)))))
def test_a_token_is_read_whole_or_refused(text: str) -> None:
    try:
        token = ApiToken.parse(text)
    except errors.InvalidArgument:
        return
    assert str(token) == text.strip()
    assert token.matches(token.digest)


def test_a_tokens_secret_is_not_shown() -> None:
    token = ApiToken.generate(TOKEN_ID)
    assert token.secret not in repr(token)
    assert not token.matches(ApiToken.generate(TOKEN_ID).digest)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=40), st.binary(max_size=20).map(envelope)))
def test_an_envelope_is_one_whole_message_or_refused(body: bytes) -> None:
    try:
        payload = read_request_envelope(body, LIMIT)
    except REFUSALS:
        return
    assert envelope(payload) == body


def test_an_envelope_that_promises_too_much_is_refused_by_its_head() -> None:
    with pytest.raises(errors.Exhausted):
        read_request_envelope(b"\x00\xff\xff\xff\xff", LIMIT)
    with pytest.raises(errors.Unsupported):
        read_request_envelope(envelope(b"", 1), LIMIT)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([True, False]))
def test_a_body_is_the_message_or_refused(body: bytes, is_json: bool) -> None:
    codec = Codec(is_json, is_stream=False)
    try:
        message = codec.decode(control_pb2.CreateServiceRequest, body)
    except errors.InvalidArgument:
        return
    assert codec.decode(control_pb2.CreateServiceRequest, codec.encode(message)) == message


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    )
)
def test_any_json_is_the_message_or_refused(value: object) -> None:
    codec = Codec(is_json=True, is_stream=False)
    for shaped in (value, {"spec": value}, {"spec": {"task": value, "name": value}}):
        try:
            codec.decode(control_pb2.CreateServiceRequest, json.dumps(shaped).encode())
        except errors.InvalidArgument:
            continue


def test_json_nested_too_deep_is_refused() -> None:
    with pytest.raises(errors.InvalidArgument):
        Codec(True, False).decode(control_pb2.CreateServiceRequest, b'{"spec":' * 2000 + b"}" * 2000)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=20), st.integers().map(str)))
def test_a_timeout_is_a_number_of_milliseconds_or_refused(text: str) -> None:
    try:
        timeout_s = read_timeout_s(text)
    except errors.InvalidArgument:
        return
    assert timeout_s is None or 0 <= timeout_s < 1e7


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_addresses_and_content_types_are_read_whatever_they_are(text: str) -> None:
    assert isinstance(address_of(text), str)
    assert isinstance(network_of(text), str)
    assert codec_of(text) is None or text.startswith("application/")


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:4711", "10.0.0.1"),
        ("ipv6:%5B2001:db8::1%5D:4711", "2001:db8::1"),
        ("ipv6:[2001:db8::1]:4711", "2001:db8::1"),
        ("unix:", ""),
        ("", ""),
    ],
)
def test_where_a_call_came_from(peer: str, address: str) -> None:
    assert address_of(peer) == address


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_has_its_connect_form(code: grpc.StatusCode) -> None:
    if code is grpc.StatusCode.OK:
        return
    error = error_of(code, "why")
    assert 400 <= error.http_status < 600
    flags, length = end_of_stream(error)[0], int.from_bytes(end_of_stream(error)[1:5], "big")
    assert (flags, length) == (END_OF_STREAM, len(end_of_stream(error)) - 5)


# ---------------------------------------------------------------- certificates and names

ROOT = RootAuthority.create("c" * 25, time.time())
PERSON = ROOT.issue_person(
    make_csr(generate_key()),
    person_subject(PersonRole.OPERATOR, "bob", "c" * 25, "d" * 25),
    now=time.time(),
    lifetime_s=60.0,
)


def test_a_persons_certificate_says_who_it_is() -> None:
    person = read_person(PERSON)
    assert person is not None
    assert (person.role, person.name) == (PersonRole.OPERATOR, "bob")
    assert (person.cluster_id, person.credential_id) == ("c" * 25, "d" * 25)


def test_a_nodes_certificate_names_no_person() -> None:
    node = ROOT.issue(
        make_csr(generate_key()),
        node_id="swarm-admin",
        cluster_id="c" * 25,
        role=NodeRole.WORKER,
        now=time.time(),
        lifetime_s=60.0,
    )
    assert read_person(node) is None


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2000), st.binary(min_size=1, max_size=4))
def test_a_bent_certificate_is_read_or_refused(position: int, junk: bytes) -> None:
    der = x509.load_pem_x509_certificate(PERSON).public_bytes(Encoding.DER)
    at = position % len(der)
    bent = der[:at] + junk + der[at + len(junk) :]
    try:
        certificate = x509.load_der_x509_certificate(bent)
        pem = certificate.public_bytes(Encoding.PEM)
    except (ValueError, x509.InvalidVersion):
        return
    try:
        read_person(pem)
    except errors.Unauthenticated:
        return


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_a_name_is_safe_in_metadata_and_on_a_terminal(text: str) -> None:
    if is_person_name(text):
        assert text.isascii()
        assert text.isprintable()
        assert " " not in text
        assert len(text) <= 64


# ---------------------------------------------------------------- how often


def test_so_often_in_a_period_and_then_again() -> None:
    now = [0.0]
    limit = PerPeriod(lambda: now[0], times=2, period_s=60.0, refusal="wait")
    for _ in range(2):
        limit.require_room("a")
        limit.add("a")
    with pytest.raises(errors.Exhausted, match="wait"):
        limit.require_room("a")
    limit.require_room("b")
    now[0] = 60.0
    limit.require_room("a")


def test_a_log_cannot_be_filled_with_refusals(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    log = RefusalLog(lambda: now[0])
    for _ in range(1000):
        log.note("viewer eve", "called /x")
    log.note("viewer bob", "called /y")
    assert len(caplog.records) == 6
    now[0] = 61.0
    log.note("viewer eve", "called /x")
    assert "995 more times" in caplog.records[6].getMessage()
    for number in range(2000):
        log.note(f"somebody {number}", "a wrong API token")
    assert len(log._seen) <= 1000


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20_000), max_size=200))
def test_the_memory_of_names_is_bounded(names: list[int]) -> None:
    limit = PerPeriod(lambda: 0.0, times=1, period_s=60.0, refusal="wait")
    for name in range(5000):
        limit.add(f"x{name}")
    for number in names:
        limit.add(str(number))
    assert len(limit._seen) <= 4096

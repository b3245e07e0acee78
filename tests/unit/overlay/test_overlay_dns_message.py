"""The DNS codec against dnspython, and against rubbish."""

from __future__ import annotations

from ipaddress import ip_address

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_overlay.core import dns_message as codec

labels = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-_", min_size=1, max_size=63)
names = st.lists(labels, min_size=1, max_size=3).map(".".join)
v4 = st.ip_addresses(v=4).map(str)
v6 = st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None).map(str)


def parsed(query: dns.message.Message) -> codec.Query:
    result = codec.parse(query.to_wire())
    assert isinstance(result, codec.Query)
    return result


@given(names, st.sampled_from(["A", "AAAA", "PTR", "ANY", "MX"]), st.booleans(), st.integers(0, 65535))
def test_queries_are_read_as_dnspython_writes_them(name: str, kind: str, edns: bool, size: int) -> None:
    query = dns.message.make_query(name, kind, use_edns=0 if edns else -1, payload=size)
    read = parsed(query)
    assert (read.id, read.name, read.kind, read.kind_class, read.edns) == (
        query.id,
        name.lower(),
        int(dns.rdatatype.from_text(kind)),
        1,
        edns,
    )
    assert codec.MIN_UDP <= read.udp_size <= codec.MAX_UDP


@given(names, st.lists(v4 | v6, max_size=40), st.booleans())
def test_replies_are_read_by_dnspython(name: str, addresses: list[str], edns: bool) -> None:
    query = dns.message.make_query(name, "A", use_edns=0 if edns else -1)
    wire = codec.reply(parsed(query), codec.NOERROR, [codec.address_record(address) for address in addresses])
    answer = dns.message.from_wire(wire)
    assert query.is_response(answer)
    found = {str(ip_address(str(record))) for rrset in answer.answer for record in rrset}
    assert found == set(addresses)
    assert all(rrset.ttl == codec.TTL_S for rrset in answer.answer)
    assert (answer.edns == 0) == edns


@given(st.integers(1, 300), st.sampled_from([512, 1232]))
def test_what_does_not_fit_is_left_out_and_said_so(count: int, limit: int) -> None:
    query = dns.message.make_query("tasks.web", "A", use_edns=0, payload=limit)
    records = [codec.address_record(f"10.0.{number // 256}.{number % 256}") for number in range(count)]
    wire = codec.reply(parsed(query), codec.NOERROR, records, limit)
    answer = dns.message.from_wire(wire)
    assert len(wire) <= limit
    found = sum(len(rrset) for rrset in answer.answer)
    assert bool(answer.flags & dns.flags.TC) == (found < count)


@given(st.binary(max_size=600))
def test_rubbish_is_survived(packet: bytes) -> None:
    result = codec.parse(packet)
    if isinstance(result, codec.Bad) and result.reply is not None:
        assert dns.message.from_wire(result.reply).rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP)


@given(names, st.data())
def test_damaged_queries_are_survived(name: str, data: st.DataObject) -> None:
    wire = bytearray(dns.message.make_query(name, "A", use_edns=0).to_wire())
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    result = codec.parse(bytes(wire[: data.draw(st.integers(0, len(wire)))]))
    if isinstance(result, codec.Query):
        codec.reply(result, codec.NOERROR, [codec.address_record("10.0.0.1")], result.udp_size)


def test_answers_get_no_answer() -> None:
    response = dns.message.make_response(dns.message.make_query("web", "A"))
    assert codec.parse(response.to_wire()) == codec.Bad(None)


@given(names.filter(lambda name: len(name) < 200))
def test_name_records(name: str) -> None:
    record = codec.name_record(name)
    assert record is not None
    assert dns.name.from_wire(record[1], 0)[0] == dns.name.from_text(name)


@pytest.mark.parametrize("bad", ["", "x" * 64, ".".join(["x" * 60] * 5)])
def test_names_that_cannot_be_written(bad: str) -> None:
    assert codec.name_record(bad) is None


@given(v4 | v6)
def test_reverse_names(address: str) -> None:
    name = str(dns.reversename.from_address(address)).rstrip(".")
    assert codec.reverse_address(name) == address


@pytest.mark.parametrize("name", ["in-addr.arpa", "1.2.in-addr.arpa", "300.1.1.1.in-addr.arpa", "web", "x.ip6.arpa"])
def test_names_that_are_not_reverse(name: str) -> None:
    assert codec.reverse_address(name) is None


def test_forged_answers_are_told_from_ours() -> None:
    query = dns.message.make_query("example.test", "A", id=77)
    good = dns.message.make_response(query).to_wire()
    question = parsed(query).question
    assert codec.answers(good, 77, question)
    assert not codec.answers(good, 78, question)
    assert not codec.answers(query.to_wire(), 77, question)
    other = dns.message.make_response(dns.message.make_query("evil.test", "A", id=77)).to_wire()
    assert not codec.answers(other, 77, question)
    assert not codec.answers(b"", 77, question)

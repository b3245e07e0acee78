"""The DNS codec against dnspython, and against rubbish."""

from __future__ import annotations

from ipaddress import ip_address

import dns.edns
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


@given(names, st.integers(0, 255), st.integers(0, 65535), st.binary(max_size=40))
def test_edns_of_any_version_size_and_option(name: str, version: int, size: int, option: bytes) -> None:
    """dnspython refuses to write versions that do not exist, so the bytes are put where they belong."""
    wire = bytearray(dns.message.make_query(name, "A", use_edns=0, payload=size, options=[_option(option)]).to_wire())
    wire[wire.index(b"\0\0\x29", codec.HEADER.size) + 6] = version
    result = codec.parse(bytes(wire))
    if version == 0:
        assert isinstance(result, codec.Query)
        assert result.edns
        return
    assert isinstance(result, codec.Bad)
    assert result.reply is not None
    assert dns.message.from_wire(result.reply).rcode() == dns.rcode.BADVERS


def _option(data: bytes) -> dns.edns.GenericOption:
    return dns.edns.GenericOption(65001, data)


targets = st.lists(labels, min_size=1, max_size=3).map(".".join)


@given(names, st.lists(st.tuples(st.integers(0, 65535), targets, v4 | v6), max_size=30), st.sampled_from([512, 65535]))
def test_ports_and_their_addresses_are_read_by_dnspython(
    name: str, places: list[tuple[int, str, str]], limit: int
) -> None:
    query = dns.message.make_query(name, "SRV", use_edns=0)
    written = [(port, codec.encode_name(target), address) for port, target, address in places]
    records = [codec.service_record(port, target) for port, target, _address in written if target]
    more = [(target, codec.address_record(address)) for _port, target, address in written if target]
    wire = codec.reply(parsed(query), codec.NOERROR, records, limit, more)
    assert len(wire) <= limit
    answer = dns.message.from_wire(wire)
    found = {(record.port, str(record.target).lower()) for rrset in answer.answer for record in rrset}
    wanted = {(port, f"{target}.".lower()) for port, target, _address in places}
    assert found <= wanted
    if not answer.flags & dns.flags.TC:
        assert found == wanted
    else:
        assert answer.additional == []

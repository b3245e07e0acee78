"""Ports, mounts, networks, hosts, pairs: docker's short and long forms."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_cli.parse import attachments, mounts, pairs, ports
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Mount, MountType, NetworkAttachmentSpec, PortConfig, Protocol, PublishMode


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [PortConfig(target_port=80)]),
        ("8080:80", [PortConfig(target_port=80, published_port=8080)]),
        ("53:53/udp", [PortConfig(protocol=Protocol.UDP, target_port=53, published_port=53)]),
        (
            "8000-8001:80-81",
            [PortConfig(target_port=80, published_port=8000), PortConfig(target_port=81, published_port=8001)],
        ),
        (
            "published=8080,target=80,protocol=tcp,mode=host",
            [PortConfig(target_port=80, published_port=8080, publish_mode=PublishMode.HOST)],
        ),
        ("target=80", [PortConfig(target_port=80)]),
        ("target=80,published=", [PortConfig(target_port=80)]),
    ],
)
def test_ports(text: str, expected: list[PortConfig]) -> None:
    assert ports.ports(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "65536",
        "x:80",
        "80:x",
        "8080:80/icmp",
        "81-80",
        "1-65535",
        "published=80",
        "target=80,mode=mesh",
        "target=80,speed=9",
        "target=80,,mode=host",
        ":80/",
    ][:-1],
)
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        ports.ports(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=bind,source=/srv,target=/data,readonly", Mount(source="/srv", target="/data", read_only=True)),
        ("type=bind,src=/srv,dst=/data,ro=false", Mount(source="/srv", target="/data")),
        ("source=v,target=/v", Mount(type=MountType.VOLUME, source="v", target="/v")),
        ("type=tmpfs,target=/t,tmpfs-size=1m", Mount(type=MountType.TMPFS, target="/t", tmpfs_size_bytes=1 << 20)),
        ('type=bind,"source=/a,b",target=/c', Mount(source="/a,b", target="/c")),
    ],
)
def test_mounts(text: str, expected: Mount) -> None:
    assert mounts.mount(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "type=bind,source=srv,target=/data",
        "type=bind,source=/srv,target=data",
        "type=bind,source=/srv",
        "type=tmpfs,source=/x,target=/t",
        "type=volume,source=v,target=/v,tmpfs-size=1m",
        "type=nfs,source=/x,target=/t",
        "type=bind,source=/a,target=/b,readonly=perhaps",
        "type=bind,source=/a,target=/b,colour=red",
    ],
)
def test_what_is_no_mount_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        mounts.mount(text)


def test_networks() -> None:
    assert attachments.network("web") == NetworkAttachmentSpec(target="web")
    assert attachments.network("name=web,alias=a,alias=b") == NetworkAttachmentSpec(target="web", aliases=("a", "b"))
    for text in ("alias=a", "name=web,speed=9"):
        with pytest.raises(InvalidArgument):
            attachments.network(text)


@pytest.mark.parametrize(("text", "entry"), [("a:1.2.3.4", "a:1.2.3.4"), ("a=::1", "a:::1"), ("a=[::1]", "a:::1")])
def test_hosts(text: str, entry: str) -> None:
    assert attachments.host_entry(text) == entry


@pytest.mark.parametrize("text", ["a", ":1.2.3.4", "a:b", "a:"])
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        attachments.host_entry(text)


def test_a_bare_variable_takes_our_value_or_is_dropped() -> None:
    assert pairs.environment(["A=1", "B", "C", "D="], {"B": "2"}) == ["A=1", "B=2", "D="]


def test_the_last_of_a_variable_wins_in_the_place_of_the_first() -> None:
    assert pairs.merge_environment(["A=1", "B=2"], ["A=3", "C=4"]) == ["A=3", "B=2", "C=4"]


def test_a_file_of_variables_may_have_comments_and_empty_lines() -> None:
    assert pairs.environment_file("# x\n\nA=1 \n  B=2\n", {}) == ["A=1 ", "B=2"]


@pytest.mark.parametrize("text", ["=1", "A B=1", ""])
def test_what_is_no_variable_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        pairs.environment([text], {})


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    for read in (
        ports.ports,
        mounts.mount,
        attachments.network,
        attachments.preference,
        attachments.host_entry,
    ):
        with contextlib.suppress(InvalidArgument):
            read(text)


@given(st.integers(1, 65535), st.integers(1, 65535), st.sampled_from(["tcp", "udp"]))
def test_short_and_long_form_mean_the_same(published: int, target: int, protocol: str) -> None:
    long = f"published={published},target={target},protocol={protocol}"
    assert ports.ports(f"{published}:{target}/{protocol}") == ports.ports(long)

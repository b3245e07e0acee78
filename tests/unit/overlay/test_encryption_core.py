"""What encryption decides: addresses, changes of devices in both languages, pairs of keys, steps of rotation."""

from __future__ import annotations

import contextlib
import struct
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.generic.wireguard import wgmsg  # type: ignore[import-untyped]

from pyswarm_overlay.encryption.core import genetlink, peers, rotation, uapi
from pyswarm_overlay.encryption.core.addresses import is_inner, key_address, node_address
from pyswarm_overlay.encryption.core.peers import KEEPALIVE_S, OwnKey, pair_of, wanted
from pyswarm_overlay.encryption.core.rotation import Quiet, Step, next_step
from pyswarm_overlay.encryption.core.wireguard import (
    Device,
    DeviceChange,
    FoundDevice,
    FoundPeer,
    Peer,
    PeerChange,
    difference,
)
from pyswarm_overlay.encryption.types import TunnelKey, TunnelPeer

OWN = "192.0.2.1"


def key(letter: str) -> bytes:
    return letter.encode() * 32


# ---- addresses


def test_addresses_follow_from_what_others_know() -> None:
    assert node_address("192.0.2.1") == node_address("192.0.2.1")
    assert node_address("2001:db8::1") == node_address("2001:db8:0:0::1")
    made = {node_address(f"10.{a}.{b}.1") for a in range(64) for b in range(64)}
    made |= {key_address(number.to_bytes(32, "big")) for number in range(4096)}
    assert len(made) == 2 * 4096
    assert all(is_inner(address) for address in made)
    assert not is_inner("fd00::1")


# ---- changes of devices


def after(found: FoundDevice, change: DeviceChange) -> FoundDevice:
    """What WireGuard makes of a change."""
    known = dict(found.peers)
    for peer in change.peers:
        if peer.is_removed:
            known.pop(peer.public_key, None)
            continue
        old = known.get(peer.public_key, FoundPeer(None, frozenset(), 0))
        for other, value in known.items():
            known[other] = replace(value, allowed=value.allowed - set(peer.allowed))
        kept = frozenset() if peer.is_replaced else old.allowed
        known[peer.public_key] = FoundPeer(
            peer.endpoint or old.endpoint,
            kept | set(peer.allowed),
            old.keepalive_s if peer.keepalive_s is None else peer.keepalive_s,
        )
    return FoundDevice(change.private_key or found.private_key, change.port or found.port, known)


_LETTERS = "abcd"
_ADDRESSES = [f"fd00::{number}" for number in range(1, 7)]


@st.composite
def owners(draw: st.DrawFn) -> dict[bytes, frozenset[str]]:
    """Some keys, and some addresses each of which one of them has."""
    letters = draw(st.sets(st.sampled_from(_LETTERS)))
    held: dict[bytes, set[str]] = {key(letter): set() for letter in letters}
    for address in _ADDRESSES:
        owner = draw(st.sampled_from([*sorted(letters), ""]))
        if owner:
            held[key(owner)].add(address)
    return {one: frozenset(addresses) for one, addresses in held.items()}


@given(owners(), owners(), st.integers(0, 1))
def test_a_change_leads_to_what_is_wanted_and_takes_nothing_away_on_the_way(
    before: dict[bytes, frozenset[str]], later: dict[bytes, frozenset[str]], keepalive_s: int
) -> None:
    goal = Device(key("p"), 51820, {one: Peer((OWN, 1), held, keepalive_s) for one, held in later.items()})
    found = FoundDevice(key("o"), 51821, {one: FoundPeer((OWN, 1), held, 0) for one, held in before.items()})
    change = difference(goal, found, {})
    now = found
    for step in change.peers:
        now = after(now, DeviceChange(peers=(step,)))
        for one in before.keys() & later.keys():
            assert before[one] & later[one] <= now.peers[one].allowed, "for a moment it was refused"
    now = after(found, change)
    assert {one: peer.allowed for one, peer in now.peers.items()} == later
    assert (now.private_key, now.port) == (key("p"), 51820)
    written = {one: peer.endpoint for one, peer in goal.peers.items()}
    assert not difference(goal, now, written)


def test_a_peer_that_moved_by_itself_is_left_there() -> None:
    goal = Device(key("p"), 1, {key("a"): Peer((OWN, 5), frozenset(), 0)})
    found = FoundDevice(key("p"), 1, {key("a"): FoundPeer(("198.51.100.9", 7), frozenset(), 0)})
    assert not difference(goal, found, {key("a"): (OWN, 5)})
    [told] = difference(goal, found, {key("a"): (OWN, 4)}).peers
    assert told.endpoint == (OWN, 5)


# ---- both languages

CHANGE = DeviceChange(
    private_key=key("p"),
    port=51820,
    peers=(
        PeerChange(key("a"), endpoint=("192.0.2.7", 51821), keepalive_s=25, allowed=("fd00::1", "fd00::2")),
        PeerChange(key("b"), endpoint=("2001:db8::7", 51822), allowed=("fd00::3",), is_replaced=True),
        PeerChange(key("c"), is_removed=True),
    ),
)


def test_what_wireguard_go_is_told() -> None:
    assert uapi.request(CHANGE).decode() == "\n".join(
        [
            "set=1",
            f"private_key={key('p').hex()}",
            "listen_port=51820",
            f"public_key={key('a').hex()}",
            "endpoint=192.0.2.7:51821",
            "persistent_keepalive_interval=25",
            "allowed_ip=fd00::1/128",
            "allowed_ip=fd00::2/128",
            f"public_key={key('b').hex()}",
            "endpoint=[2001:db8::7]:51822",
            "replace_allowed_ips=true",
            "allowed_ip=fd00::3/128",
            f"public_key={key('c').hex()}",
            "remove=true",
            "",
            "",
        ]
    )


def test_what_wireguard_go_answers() -> None:
    answer = (
        f"private_key={key('p').hex()}\nlisten_port=51820\n"
        f"public_key={key('a').hex()}\npreshared_key={'0' * 64}\nprotocol_version=1\nendpoint=[2001:db8::7%2]:51821\n"
        "last_handshake_time_sec=1790000000\nlast_handshake_time_nsec=5\ntx_bytes=1\nrx_bytes=148\n"
        "persistent_keepalive_interval=25\nallowed_ip=fd00::1/128\nallowed_ip=10.0.0.0/8\n"
        f"public_key={key('b').hex()}\nerrno=0\n\n"
    )
    first = FoundPeer(("2001:db8::7", 51821), frozenset({"fd00::1", "10.0.0.0/8"}), 25, 1_790_000_000.0, 148)
    second = FoundPeer(None, frozenset(), 0)
    assert uapi.device(answer.encode()) == FoundDevice(key("p"), 51820, {key("a"): first, key("b"): second})


def test_a_refusal_has_its_number_and_no_key() -> None:
    with pytest.raises(uapi.Refused) as refused:
        uapi.check(b"errno=-98\n\n")
    assert refused.value.errno == 98
    with pytest.raises(uapi.Malformed) as malformed:
        uapi.device(b"private_key=0123456789abcdef\nerrno=0\n\n")
    assert "0123" not in str(malformed.value)


_WORDS = st.sampled_from(
    [
        "private_key",
        "public_key",
        "endpoint",
        "allowed_ip",
        "errno",
        "rx_bytes",
        "listen_port",
        "=",
        "\n",
        "0",
        "::1/129",
    ]
)


@given(st.one_of(st.binary(max_size=300), st.lists(_WORDS, max_size=30).map(lambda words: "".join(words).encode())))
def test_whatever_answers_is_understood_or_refused(answer: bytes) -> None:
    for text in (answer, answer + b"\nerrno=0\n\n"):
        with contextlib.suppress(uapi.Malformed, uapi.Refused):
            uapi.device(text)


def decoded(body: bytes) -> dict[str, object]:
    """By pyroute2's definition of the kernel's messages."""
    message = wgmsg(struct.pack("=IHHII", 16 + len(body), 30, 0, 1, 0) + body)
    message.decode()
    return dict(message["attrs"])


def test_the_kernel_is_told_the_same() -> None:
    head, rest = genetlink.set_requests("ps-wg0", CHANGE)
    assert head[:2] == bytes([1, 1])
    said = decoded(head)
    assert (said["WGDEVICE_A_IFNAME"], said["WGDEVICE_A_LISTEN_PORT"]) == ("ps-wg0", 51820)
    told = [dict(peer["attrs"]) for peer in decoded(rest)["WGDEVICE_A_PEERS"]]  # type: ignore[attr-defined]
    assert [b64decode(peer["WGPEER_A_PUBLIC_KEY"]) for peer in told] == [key("a"), key("b"), key("c")]
    ends = [peer.get("WGPEER_A_ENDPOINT") for peer in told]
    assert [(end["addr"], end["port"]) for end in ends if end] == [("192.0.2.7", 51821), ("2001:db8::7", 51822)]
    assert [peer.get("WGPEER_A_FLAGS") for peer in told] == [None, 2, 1]
    assert [peer.get("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") for peer in told] == [25, None, None]
    allowed = [dict(one["attrs"]) for one in told[0]["WGPEER_A_ALLOWEDIPS"]]
    assert [one["WGALLOWEDIP_A_CIDR_MASK"] for one in allowed] == [128, 128]
    assert [one["WGALLOWEDIP_A_FAMILY"] for one in allowed] == [10, 10]


def test_many_peers_are_told_in_more_than_one_message() -> None:
    changes = tuple(PeerChange(number.to_bytes(32, "big"), allowed=("fd00::1",)) for number in range(250))
    bodies = genetlink.set_requests("ps-wg0", DeviceChange(peers=changes))
    assert [len(decoded(body)["WGDEVICE_A_PEERS"]) for body in bodies] == [100, 100, 50]  # type: ignore[arg-type]
    assert genetlink.device(bodies).peers.keys() == {change.public_key for change in changes}


def test_what_the_kernel_tells_is_read_as_it_was_told() -> None:
    """A dump has the layout of what one sets, and what it counted besides."""
    found = genetlink.device(genetlink.set_requests("ps-wg0", CHANGE))
    assert (found.private_key, found.port) == (key("p"), 51820)
    assert found.peers[key("a")] == FoundPeer(("192.0.2.7", 51821), frozenset({"fd00::1", "fd00::2"}), 25)
    assert found.peers[key("b")].endpoint == ("2001:db8::7", 51822)


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_whatever_the_kernel_tells_is_read(bodies: list[bytes]) -> None:
    genetlink.device(bodies)
    for body in bodies:
        genetlink.family_id(body)


# ---- pairs of keys


def own(letter: str, number: int, *, retired_at: float = 0.0, made_at: float = 0.0) -> OwnKey:
    return OwnKey(number, number % 2, key(letter.upper()), key(letter), 51820 + number % 2, made_at, retired_at)


def peer(address: str, *letters: str) -> TunnelPeer:
    keys = tuple(TunnelKey(public_key=key(letter), port=1, number=n) for n, letter in enumerate(letters, 1))
    return TunnelPeer(node_id=address, address=address, keys=keys)


def shaken(**handshakes: str) -> dict[int, FoundDevice]:
    """Devices by slot (`d0="ab"`): with which of the peers' keys they have had a handshake."""
    made = {}
    for name, letters in handshakes.items():
        held = {key(letter): FoundPeer(None, frozenset(), KEEPALIVE_S, 1000.0) for letter in letters}
        made[int(name[1:])] = FoundDevice(key("P"), 1, held)
    return made


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (shaken(d0="", d1=""), (1, "y")),
        (shaken(d0="x", d1=""), (0, "x")),
        (shaken(d0="xy", d1=""), (0, "y")),
        (shaken(d0="xy", d1="x"), (1, "x")),
        (shaken(d0="xy", d1="xy"), (1, "y")),
    ],
    ids=["none works", "the old ones", "the peer's new one", "our new one", "both new ones"],
)
def test_the_newest_keys_that_work_with_one_another_are_used(
    found: dict[int, FoundDevice], expected: tuple[int, str]
) -> None:
    keys, other = (own("a", 2), own("b", 3)), peer("192.0.2.2", "x", "y")
    pair = pair_of(keys, other, found)
    assert pair is not None
    assert (pair.slot, pair.public_key) == (expected[0], key(expected[1]))
    devices = wanted(keys, OWN, [other], found)
    destination = node_address("192.0.2.2")
    assert devices.routes == {destination: expected[0]}
    assert devices.is_settled is (found == shaken(d0="xy", d1="xy"))
    for device in devices.devices.values():
        assert [one for one, entry in device.peers.items() if destination in entry.allowed] == [key(expected[1])]
        assert all(key_address(one) in entry.allowed for one, entry in device.peers.items())


def test_a_retired_key_only_receives() -> None:
    keys = (own("a", 2, retired_at=5.0), own("b", 3))
    pair = pair_of(keys, peer("192.0.2.2", "x"), shaken(d0="x", d1=""))
    assert pair is not None
    assert pair.slot == 1
    made = wanted(keys, OWN, [peer("192.0.2.2", "x")], shaken(d0="x", d1="x")).devices
    assert [made[slot].peers[key("x")].keepalive_s for slot in (0, 1)] == [0, KEEPALIVE_S]


def test_who_has_no_key_and_who_is_this_node_is_passed_over() -> None:
    made = wanted((own("a", 2),), OWN, [peer("192.0.2.2"), peer(OWN, "x")], {})
    assert (made.routes, made.devices[0].peers, made.is_settled) == ({}, {}, True)


def test_one_end_only_begins_the_handshake() -> None:
    smaller, larger = own("a", 2), own("b", 2)
    first = wanted((smaller,), OWN, [peer("192.0.2.2", "b")], {}).devices[0].peers[key("b")]
    second = wanted((larger,), "192.0.2.2", [peer(OWN, "a")], {}).devices[0].peers[key("a")]
    assert (first.keepalive_s, second.keepalive_s) == (KEEPALIVE_S, 0)
    known = {0: FoundDevice(b"", 0, {key("a"): FoundPeer(None, frozenset(), 0)})}
    assert wanted((larger,), "192.0.2.2", [peer(OWN, "a")], known).devices[0].peers[key("a")].keepalive_s == KEEPALIVE_S


# ---- rotation

PERIOD_S = 3600.0


def step(
    keys: tuple[OwnKey, ...],
    others: Iterable[TunnelPeer],
    found: dict[int, FoundDevice],
    now: float,
    quiet: Quiet | None = None,
) -> Step:
    return next_step(keys, tuple(others), found, quiet or Quiet(0, now), now, PERIOD_S)


def test_a_key_is_replaced_when_it_is_old() -> None:
    one = own("a", 2, made_at=100.0)
    due = rotation.due_at(one, PERIOD_S)
    assert 100 + 0.9 * PERIOD_S <= due <= 100 + PERIOD_S
    assert step((one,), [], {}, due - 1) is Step.STAY
    assert step((one,), [], {}, due) is Step.MAKE
    assert rotation.period_of(0.0) == 12 * 3600.0
    assert rotation.period_of(1.0) == rotation.SHORTEST_PERIOD_S


def test_the_old_key_is_announced_until_every_reached_peer_is_reached_without_it() -> None:
    keys = (own("a", 2), own("b", 3, made_at=990.0))
    others = [peer("192.0.2.2", "x"), peer("192.0.2.3", "y")]
    assert step(keys, others, shaken(d0="xy", d1="x"), 1010.0) is Step.STAY
    assert step(keys, others, shaken(d0="xy", d1="xy"), 1010.0) is Step.RETIRE
    assert step(keys, others, shaken(d0="xy", d1="xy"), 990.5) is Step.STAY
    # One that nobody has heard of for minutes holds up nothing; one that only managers do not reach does.
    assert step(keys, others, shaken(d0="xy", d1="x"), 1000.0 + rotation.LIVE_S) is Step.RETIRE
    long_ago = (keys[0], own("b", 3, made_at=1000.0 - 10 * PERIOD_S))
    assert step(long_ago, others, shaken(d0="xy", d1=""), 1010.0) is Step.STAY


def test_the_peers_newest_key_counts() -> None:
    keys, others = (own("a", 2), own("b", 3, made_at=990.0)), [peer("192.0.2.2", "x", "y")]
    assert step(keys, others, shaken(d0="x", d1="x"), 1010.0) is Step.STAY
    assert step(keys, others, shaken(d0="x", d1="y"), 1010.0) is Step.RETIRE


def test_a_retired_key_goes_once_it_is_silent_or_dead_anyway() -> None:
    keys = (own("a", 2, retired_at=1000.0), own("b", 3))
    assert step(keys, [], {}, 1001.0, Quiet(5, 900.0)) is Step.STAY
    assert step(keys, [], {}, 1004.0, Quiet(5, 1003.0)) is Step.STAY
    assert step(keys, [], {}, 1006.0, Quiet(5, 1003.0)) is Step.DROP
    assert step(keys, [], {}, 1000.0 + rotation.DRAIN_LIMIT_S, Quiet(5, 1179.9)) is Step.DROP


def test_silence_is_what_is_not_received() -> None:
    device = FoundDevice(b"", 0, {key("x"): FoundPeer(None, frozenset(), 0, received=7)})
    first = Quiet().seen(device, 10.0)
    assert first.seen(device, 20.0).since == 10.0
    louder = FoundDevice(b"", 0, {key("x"): FoundPeer(None, frozenset(), 0, received=8)})
    assert first.seen(louder, 20.0) == Quiet(8, 20.0)
    assert peers.KEEPALIVE_S < rotation.LIVE_S

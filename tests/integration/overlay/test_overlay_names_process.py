"""The process that answers names, as the daemon sees it: started, told, lost, replaced, and alive on its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import dns.asyncquery
import dns.message
import dns.rcode
import pytest

from pyswarm_overlay import EndpointRecord, NetworkTable, TableDelta
from pyswarm_overlay.core.tables import TableState
from pyswarm_overlay.resolving import frames
from pyswarm_overlay.resolving.link import ResolverLink

Sockets = tuple[socket.socket, socket.socket]


def state(number: int, version: int = 1) -> TableState:
    record = EndpointRecord(
        endpoint_id="t1", name="db", addresses=(f"10.0.1.{number}",), node_address="192.0.2.1", ready=True
    )
    return TableState.of(
        NetworkTable(
            network_id="n1", name="back", vni=1, subnets=("10.0.1.0/24",), version=version, endpoints=(record,)
        )
    )


def moved(before: TableState, number: int) -> TableState:
    record = EndpointRecord(
        endpoint_id="t1", name="db", addresses=(f"10.0.1.{number}",), node_address="192.0.2.1", ready=True
    )
    after = before.after(
        TableDelta(network_id="n1", from_version=before.version, version=before.version + 1, upsert_endpoints=(record,))
    )
    assert after is not None
    return after


async def ask(sockets: Sockets, name: str = "db") -> str:
    """The address, or how it went; by UDP."""
    port = sockets[0].getsockname()[1]
    answer = await dns.asyncquery.udp(dns.message.make_query(name, "A"), "127.0.0.1", port=port, timeout=10)
    found = [str(record) for rrset in answer.answer for record in rrset]
    return found[0] if found else dns.rcode.to_text(answer.rcode())


@pytest.fixture
async def sockets() -> AsyncIterator[Callable[[], Sockets]]:
    made: list[socket.socket] = []

    def open_pair() -> Sockets:
        udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.create_server(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        made.extend((udp, tcp))
        return udp, tcp

    yield open_pair
    for sock in made:
        sock.close()


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[Path]:
    """As deep as a run directory may be: a socket's own name may not be that long. No process stays behind."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    yield deep
    await ResolverLink(deep, (), 60).stop()


def link_of(directory: Path) -> ResolverLink:
    link = ResolverLink(directory, (), 60)
    link.start()
    return link


async def pid_of(directory: Path) -> int:
    """Of the process that listens in the directory."""
    (path,) = directory.glob("resolver-*.sock")
    with socket.socket(socket.AF_UNIX) as probe, frames.short_path(path) as name:
        probe.connect(name)
        return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")


async def test_what_was_put_is_answered_once_synced(directory: Path, sockets: Callable[[], Sockets]) -> None:
    link, pair = link_of(directory), sockets()
    now = state(5)
    link.put(now)
    link.serve("c1", pair, ("n1",), {"me": ("10.0.1.77",)})
    await link.sync()
    assert await ask(pair) == "10.0.1.5"
    assert await ask(pair, "me") == "10.0.1.77"
    for number in range(6, 60):
        now = moved(now, number)
        link.put(now)
        await link.sync()
        assert await ask(pair) == f"10.0.1.{number}"
    link.forget("n1")
    await link.sync()
    assert await ask(pair) == "NXDOMAIN"
    await link.close()


async def test_names_go_on_without_a_daemon_and_the_next_one_takes_over(
    directory: Path, sockets: Callable[[], Sockets]
) -> None:
    old, other = sockets(), sockets()
    link = link_of(directory)
    link.put(state(5))
    link.serve("c1", old, ("n1",), {})
    link.serve("gone", other, ("n1",), {})
    await link.sync()
    await link.close()
    assert await ask(old) == "10.0.1.5"
    pid = await pid_of(directory)
    link, fresh = link_of(directory), sockets()
    link.serve("c1", fresh, ("n1",), {})
    await link.sync()
    assert await ask(old) == await ask(fresh) == "10.0.1.5"  # before the new daemon has told of any network
    link.put(state(6))
    await link.take_over(())
    await link.sync()
    assert await ask(old) == await ask(fresh) == "10.0.1.6"
    assert await pid_of(directory) == pid
    await link.close()


async def test_a_killed_process_is_started_again_and_told_everything(
    directory: Path, sockets: Callable[[], Sockets]
) -> None:
    link, pair = link_of(directory), sockets()
    link.put(state(5))
    link.serve("c1", pair, ("n1",), {})
    await link.take_over(())
    await link.sync()
    pid = await pid_of(directory)
    os.kill(pid, signal.SIGKILL)
    assert await ask(pair) == "10.0.1.5"  # asked meanwhile, the question waits in the socket
    link.put(moved(state(5), 9))
    await link.sync()
    assert await ask(pair) == "10.0.1.9"
    await link.close()


async def test_a_process_of_other_code_ends_once_the_new_one_knows_everything(
    directory: Path, sockets: Callable[[], Sockets], monkeypatch: pytest.MonkeyPatch
) -> None:
    link, pair = link_of(directory), sockets()
    link.put(state(5))
    link.serve("c1", pair, ("n1",), {})
    await link.sync()
    await link.close()
    monkeypatch.setattr(frames, "digest", lambda: "0123456789ab")
    link, fresh = link_of(directory), sockets()
    link.put(state(6))
    link.serve("c1", fresh, ("n1",), {})
    await link.take_over(())
    await link.sync()
    assert await ask(fresh) == "10.0.1.6"
    assert await ask(pair) == "10.0.1.5"  # whoever asked there before still gets an answer
    while len(list(directory.glob("resolver-*.sock"))) > 1:  # noqa: ASYNC110 - files make no events
        await asyncio.sleep(0.01)
    await link.stop()
    assert list(directory.glob("resolver-*.sock")) == []


async def test_rubbish_on_its_socket_does_not_stop_it(directory: Path, sockets: Callable[[], Sockets]) -> None:
    link, pair = link_of(directory), sockets()
    link.put(state(5))
    link.serve("c1", pair, ("n1",), {})
    await link.sync()
    await link.close()
    (path,) = directory.glob("resolver-*.sock")
    for rubbish in (b"x", b"\0\0\0\1\xc1", b"\xff" * 100, b"\0\0\0\5hello"):
        with socket.socket(socket.AF_UNIX) as connection, frames.short_path(path) as name:
            connection.connect(name)
            connection.sendall(rubbish)
    assert await ask(pair) == "10.0.1.5"

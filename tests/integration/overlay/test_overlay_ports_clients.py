"""Published ports with real traffic from outside: which task answers, and which client address it sees."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports_lab import CLIENT, CLIENT6, PortsLab, Teller, ask, ask_udp, dial, ports_lab, six, was_reset

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortsLab]:
    """Tasks 10 and 11 on the first host, 12 on the second, none on the third; 8080 is published everywhere."""
    directory: Path = tmp_path_factory.mktemp("ports")
    with ports_lab(directory, {0: [10, 11], 1: [12]}) as made:
        made.start()
        for host in made.hosts:
            host.call("apply_table", made.table())
        for number in (10, 11, 12):
            made.attach(number)
        made.publish(made.port(), made.port(protocol="udp"))
        tellers = [Teller(made.netns(number), f"c{number}") for number in (10, 11, 12)]
        yield made
        for teller in tellers:
            teller.close()


@pytest.mark.parametrize("asked", [ask, ask_udp])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_every_task_sees_the_clients_own_address(published: PortsLab, index: int, asked: object) -> None:
    host = published.hosts[index]
    for address, client in ((host.address, CLIENT), (six(host), CLIENT6)):
        answers = [(asked)(published.client, address) for _ in range(9)]  # type: ignore[operator]
        assert {name for name, _seen in answers} == {"c10", "c11", "c12"}
        assert {seen for _name, seen in answers} == {client}


def test_one_client_port_at_two_nodes_is_two_connections(published: PortsLab) -> None:
    """Both come to the same node with the same addresses and ports."""
    first, _second, third = published.hosts
    for address, other in ((first.address, third.address), (six(first), six(third))):
        for number in range(20_000, 20_006):
            one = dial(published.client, address, source_port=number)
            two = dial(published.client, other, source_port=number)
            for connection, word in ((one, b"one"), (two, b"two")):
                connection.sendall(word)
                assert connection.recv(100) == word
                connection.close()
            assert ask_udp(published.client, address, source_port=number)
            assert ask_udp(published.client, other, source_port=number)


def test_an_idle_client_is_reset_when_its_backend_goes(published: PortsLab) -> None:
    """Through the node that has no task, and through the task's own; clients of other backends notice nothing."""
    made, third = published, published.hosts[2]
    places = [(host.address, six(host)) for host in made.hosts]
    clients = [dial(made.client, address) for pair in places for address in pair for _ in range(3)]
    names = {}
    for client in clients:
        client.sendall(b"x")
        assert client.recv(10) == b"x"
    gone = made.tasks.pop(1)
    try:
        made.hosts[1].call("detach", "c12")
        made.publish(made.port(), made.port(protocol="udp"))
        ended = [client for client in clients if was_reset_soon(client)]
        names = {client for client in clients if client not in ended}
        assert len(ended) == len(clients) // 3
        for client in names:
            client.settimeout(5)
            client.sendall(b"y")
            assert client.recv(10) == b"y"
        assert ask(made.client, third.address)[0] in ("c10", "c11")
    finally:
        for client in clients:
            client.close()
        made.tasks[1] = gone


def was_reset_soon(client: socket.socket) -> bool:
    return was_reset(client, within=1.0)

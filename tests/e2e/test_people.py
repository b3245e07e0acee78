"""People elsewhere: certificates and tokens from another host, and the log of what they changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_cluster import Cluster, eventually

ADDRESSES = {"n1": "192.168.77.11", "n2": "192.168.77.12", "n3": "192.168.77.13"}
CLIENT = """
import asyncio, json, ssl, sys
import aiohttp

async def main(address, method, body, ca, token_file):
    context = ssl.create_default_context(cafile=ca)
    headers = {"Authorization": "Bearer " + open(token_file).read().strip(), "Content-Type": "application/json"}
    async with aiohttp.ClientSession() as session:
        url = f"https://{address}:2378/pyswarm.v1.{method}"
        post = session.post(url, data=body, headers=headers, ssl=context, server_hostname="swarm-manager")
        async with post as answer:
            print(json.dumps({"status": answer.status, "body": json.loads(await answer.read())}))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def people(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a viewer's and an operator's certificate, and an operator's token."""
    folder = tmp_path_factory.mktemp("people")
    for role in ("viewer", "operator"):
        cluster.run("n1", "client-cert", "create", "--role", role, "--name", f"a-{role}", "-o", str(folder / role))
    token = cluster.run("n1", "token", "create", "--role", "operator", "--name", "ci", "--expires", "1h")
    (folder / "token").write_text(token)
    yield folder
    cluster.on("n1", "pyswarm", "client-cert", "rm", "a-viewer", "a-operator")
    cluster.on("n1", "pyswarm", "token", "rm", "ci")


def elsewhere(cluster: Cluster, folder: Path, *argv: str, to: str = "n2") -> subprocess.CompletedProcess[str]:
    """`pyswarm …` on a worker, against a manager."""
    host = f"tcp://{ADDRESSES[to]}:2377"
    return cluster.on("n5", "pyswarm", "-H", host, "--tls-dir", str(folder), *argv)


def by_token(cluster: Cluster, people: Path, to: str, method: str, body: object) -> tuple[int, object]:
    ca, token = str(people / "viewer" / "ca.pem"), str(people / "token")
    argv = [sys.executable, "-c", CLIENT, ADDRESSES[to], method, json.dumps(body), ca, token]
    done = cluster.on("n5", *argv)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return answer["status"], answer["body"]


def test_each_role_does_what_it_may_from_another_machine(cluster: Cluster, people: Path) -> None:
    viewer, operator = people / "viewer", people / "operator"
    assert elsewhere(cluster, viewer, "node", "ls", "-q").stdout.count("\n") == 5
    refused = elsewhere(cluster, viewer, "network", "create", "by-people")
    assert "a viewer may not call" in refused.stderr
    assert elsewhere(cluster, operator, "network", "create", "by-people").returncode == 0
    assert "ask an admin" in elsewhere(cluster, operator, "node", "promote", "n5").stderr
    assert "only an admin" in elsewhere(cluster, operator, "join-token", "worker").stderr
    assert "local socket" in elsewhere(cluster, operator, "info").stderr


def test_a_token_works_on_every_manager_and_what_it_did_is_recorded(cluster: Cluster, people: Path) -> None:
    for host in ADDRESSES:
        status, _ = by_token(cluster, people, host, "Control/CreateNetwork", {"spec": {"name": f"by-token-{host}"}})
        assert status == 200
    status, answer = by_token(cluster, people, "n1", "Access/ListTokens", {})
    assert (status, answer["code"]) == (403, "permission_denied")  # type: ignore[index]
    log = cluster.run("n3", "events", "--audit", "--filter", "actor=ci", "--format", "json")
    records = [json.loads(line) for line in log.splitlines()]
    assert [record["Targets"][0]["Name"] for record in records] == [f"by-token-{host}" for host in ADDRESSES]
    assert {(record["Source"], record["Role"], record["ActorKind"]) for record in records} == {
        ("192.168.77.15", "operator", "token")
    }


def test_a_token_becomes_a_certificate(cluster: Cluster, people: Path, tmp_path: Path) -> None:
    ca, folder = str(people / "viewer" / "ca.pem"), tmp_path / "hour"
    argv = ("token", "exchange", "--ca", ca, "--token-file", str(people / "token"), "-o", str(folder))
    cluster.run("n5", *argv, ADDRESSES["n3"])
    assert elsewhere(cluster, folder, "network", "create", "by-hour").returncode == 0
    log = cluster.run("n1", "events", "--audit", "--filter", "actor=ci", "--format", "{{.ActorKind}} {{.Method}}")
    assert log.splitlines()[-2:] == ["token Access/ExchangeToken", "certificate Control/CreateNetwork"]


def test_the_log_is_the_same_on_every_manager_and_outlives_its_leader(cluster: Cluster, people: Path) -> None:
    before = {host: cluster.run(host, "events", "--audit", "--until", "0s") for host in ADDRESSES}
    assert len(set(before.values())) == 1
    first = before["n1"].splitlines()[0]
    assert "Daemon/Init" in first
    leader = cluster.leader()
    other = next(host for host in ADDRESSES if host != leader)
    cluster.lab.kill(leader)
    try:
        eventually(lambda: cluster.leader(other) not in ("", leader), "another manager leads")
        after = cluster.run(other, "events", "--audit")
        assert after.startswith(before[other])
        done = elsewhere(cluster, people / "operator", "network", "rm", "by-people", to=other)
        assert done.returncode == 0, done.stderr
        filters = ["--filter", "method=RemoveNetwork", "--filter", "object=by-people"]
        (line,) = cluster.run(other, "events", "--audit", *filters).splitlines()
        assert (
            "certificate a-operator (operator, 192.168.77.15) Control/RemoveNetwork: remove network by-people" in line
        )
    finally:
        cluster.lab.start(leader)
        eventually(lambda: cluster.nodes(leader), "the manager that was killed is one again")


def test_what_was_removed_is_refused_everywhere(cluster: Cluster, people: Path) -> None:
    cluster.run("n1", "client-cert", "rm", "a-viewer")
    cluster.run("n1", "token", "rm", "ci")
    for host in ADDRESSES:  # each as soon as it has applied the removal

        def is_refused(host: str = host) -> bool:
            done = elsewhere(cluster, people / "viewer", "node", "ls", to=host)
            return "was removed" in done.stderr and by_token(cluster, people, host, "Control/ListNodes", {})[0] == 401

        eventually(is_refused, f"{host} refuses what was removed")

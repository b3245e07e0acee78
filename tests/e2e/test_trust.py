"""Who may join, and whose certificates are believed: a whole swarm whose root is replaced while it works."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator

import pytest
from e2e_cluster import Cluster, eventually, one_line_of

from pyswarm_lab.cluster import wait_daemons
from pyswarm_lab.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

MANAGERS, WORKERS = ("n1", "n2"), ("n3", "n4")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two managers and two workers under a CA of the operator's own; the last worker has not joined."""
    lab = Lab.up(f"trust-{uuid.uuid4().hex[:6]}", managers=2, workers=2, init=False)
    try:
        wait_daemons(lab)
        swarm = Cluster(lab.name)
        chain, key = own_ca(swarm, "n1")
        swarm.run("n1", "init", "--cert-expiry", "2h", "--root-ca-cert", chain, "--root-ca-key", key)
        assert root(swarm) == swarm.on("n1", "cat", "/root/ca/root.crt").stdout
        join(swarm, "n2", swarm.run("n1", "join-token", "-q", "manager").strip())
        join(swarm, "n3", swarm.run("n1", "join-token", "-q", "worker").strip())
        yield swarm
    finally:
        assert lab.down() == []


def join(swarm: Cluster, host: str, token: str) -> None:
    swarm.run(host, "join", "--token", token, swarm.lab.host("n1").address)


def root(swarm: Cluster, host: str = "n1") -> str:
    return swarm.run(host, "ca")


def issuers(swarm: Cluster, *hosts: str) -> dict[str, str]:
    """Who signed the certificate that each host has, by host name, as the node itself has it on disk."""
    script = "openssl x509 -in /var/lib/pyswarm/certificates/node.crt -noout -issuer"
    return {host: swarm.on(host, "sh", "-c", script).stdout.strip() for host in hosts or (*MANAGERS, *WORKERS)}


def trusted(swarm: Cluster, host: str) -> str:
    return swarm.on(host, "cat", "/var/lib/pyswarm/certificates/root-ca.crt").stdout


def ready(swarm: Cluster) -> int:
    return sum(status == "Ready" for status, _ in swarm.nodes().values())


def remove_left(swarm: Cluster) -> None:
    for line in swarm.run("n1", "node", "ls", "--format", "{{.ID}} {{.Status}}").splitlines():
        if line.endswith("Down"):
            swarm.run("n1", "node", "rm", line.split()[0])


def test_a_token_for_one_machine(cluster: Cluster) -> None:
    token = cluster.run(
        "n2", "join-token", "create", "--role", "worker", "--uses", "1", "--expires", "1h", "-q"
    ).strip()
    listed = json.loads(cluster.run("n1", "join-token", "ls", "--format", "json"))
    assert (listed["Role"], listed["Uses"]) == ("worker", "1/1")
    join(cluster, "n4", token)
    eventually(lambda: ready(cluster) == 4, "four nodes are ready")
    assert json.loads(cluster.run("n1", "join-token", "ls", "--format", "json"))["Uses"] == "0/1"
    cluster.run("n4", "leave")
    again = cluster.on("n4", "pyswarm", "join", "--token", token, cluster.lab.host("n1").address)
    assert "used up (1 machine joined with it)" in one_line_of(again)
    assert cluster.run("n1", "join-token", "rm", listed["ID"]).strip() == listed["ID"]
    gone = cluster.on("n4", "pyswarm", "join", "--token", token, cluster.lab.host("n1").address)
    assert "invalid join token" in one_line_of(gone)


def test_the_root_is_replaced_while_a_node_is_away(cluster: Cluster) -> None:
    join(cluster, "n4", cluster.run("n1", "join-token", "-q", "worker").strip())
    remove_left(cluster)
    eventually(lambda: ready(cluster) == 4, "four nodes are ready")
    old_root, old_token = root(cluster), cluster.run("n1", "join-token", "-q", "worker").strip()
    away = issuers(cluster, "n3")["n3"]
    cluster.lab.kill("n3")
    cluster.run("n2", "ca", "--rotate", "-d")
    # All but the one that is away get new certificates, and the rotation waits for that one.
    eventually(lambda: away not in issuers(cluster, "n1", "n2", "n4").values(), "three have new certificates")
    assert root(cluster) == old_root
    assert old_root in trusted(cluster, "n1")
    assert trusted(cluster, "n1") != old_root
    cluster.lab.start("n3")
    eventually(lambda: root(cluster) != old_root, "the new root is the root")
    eventually(
        lambda: all(trusted(cluster, host) == root(cluster) for host in (*MANAGERS, *WORKERS)), "it alone counts"
    )
    assert len(set(issuers(cluster).values())) == 1
    eventually(lambda: ready(cluster) == 4, "all are well")
    assert cluster.run("n1", "join-token", "-q", "worker").strip() != old_token


def test_a_node_that_was_removed_before_it_knew_of_another_root_hears_it(cluster: Cluster) -> None:
    """No TLS lets its certificate in any more; and it would wait for ever."""
    old_root = root(cluster)
    cluster.lab.kill("n4")
    cluster.run("n1", "ca", "--rotate", "-d")
    cluster.run("n1", "node", "rm", "--force", "n4")
    eventually(lambda: root(cluster) != old_root, "nobody else is waited for")
    cluster.lab.start("n4")
    eventually(
        lambda: "removed from its cluster" in cluster.on("n4", "pyswarm", "info").stdout, "it says that it was removed"
    )
    assert cluster.state_of("n4") == "error"
    cluster.run("n4", "leave")
    join(cluster, "n4", cluster.run("n1", "join-token", "-q", "worker").strip())
    eventually(lambda: ready(cluster) == 4, "four nodes are ready")


def own_ca(swarm: Cluster, host: str) -> tuple[str, str]:
    """Files with an operator's own CA on that host: an intermediate that signs, and its root."""
    script = """set -e; mkdir -p /root/ca; cd /root/ca
    openssl ecparam -name secp384r1 -genkey -noout -out root.key
    openssl req -x509 -new -key root.key -subj "/CN=Example Root" -days 3650 -out root.crt
    openssl ecparam -name prime256v1 -genkey -noout -out signing.key
    openssl req -new -key signing.key -subj "/CN=Example Signing" -out signing.csr
    printf 'basicConstraints=critical,CA:TRUE\\nkeyUsage=critical,keyCertSign\\nsubjectKeyIdentifier=hash\\n' > ext
    printf 'authorityKeyIdentifier=keyid\\n' >> ext
    openssl x509 -req -in signing.csr -CA root.crt -CAkey root.key -CAcreateserial -days 3650 \\
      -extfile ext -out signing.crt
    cat signing.crt root.crt > chain.crt"""
    done = swarm.on(host, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    return "/root/ca/chain.crt", "/root/ca/signing.key"


def test_the_root_is_replaced_by_the_operators_own(cluster: Cluster) -> None:
    chain, key = own_ca(cluster, "n1")
    wrong = cluster.refused("n1", "ca", "--rotate", "--ca-cert", chain, "--ca-key", "/root/ca/root.key")
    assert "the key does not fit" in wrong
    done = cluster.on("n1", "pyswarm", "ca", "--rotate", "--ca-cert", chain, "--ca-key", key)
    assert done.returncode == 0, done.stderr
    assert "4/4 nodes" in done.stderr
    assert "PRIVATE KEY" not in done.stdout + done.stderr
    assert done.stdout == cluster.on("n1", "cat", "/root/ca/root.crt").stdout == root(cluster, "n2")
    eventually(lambda: all(trusted(cluster, host) == done.stdout for host in (*MANAGERS, *WORKERS)), "all trust it")
    assert all("Example Signing" in issuer for issuer in issuers(cluster).values())
    about = json.loads(cluster.run("n1", "node", "inspect", "n3"))[0]["Description"]["TLSInfo"]
    assert about["CertIssuer"]
    # A machine joins by what it is told now, through the whole chain.
    cluster.run("n4", "leave")
    join(cluster, "n4", cluster.run("n1", "join-token", "-q", "worker").strip())
    remove_left(cluster)
    eventually(lambda: ready(cluster) == 4, "all are well")
    audit = cluster.run("n1", "events", "--audit")
    assert "Security/CreateJoinToken" in audit
    assert "Security/RotateRoot" in audit
    assert "PRIVATE KEY" not in audit
    logs = "".join(cluster.lab.log(host) for host in (*MANAGERS, *WORKERS))
    assert "PRIVATE KEY" not in logs


ASK = """
import asyncio, pathlib, sys
import pyswarm_node
import grpc
from pyswarm_common.identity import NodeIdentity
from pyswarm_common.rpc import open_channel

async def main():
    identity = NodeIdentity.load(pathlib.Path("/var/lib/pyswarm/certificates"))
    async with open_channel(sys.argv[1], identity, sys.argv[2]) as channel:
        try:
            await channel.unary_unary(sys.argv[3])(b"", timeout=10)
        except grpc.aio.AioRpcError as error:
            print(error.code().name, error.details())

asyncio.run(main())
"""


def asked(swarm: Cluster, host: str, address: str, name: str, method: str) -> str:
    """What is answered to a call with that host's certificate."""
    return swarm.on(host, sys.executable, "-c", ASK, address, name, method).stdout.strip()


def test_a_removed_node_is_refused_everywhere(cluster: Cluster) -> None:
    targets = [
        (f"{cluster.lab.host(host).address}:2377", "swarm-manager", "/pyswarm.v1.CA/RenewCertificate")
        for host in MANAGERS
    ]
    targets += [
        (f"{cluster.lab.host(host).address}:7946", "swarm-node", "/pyswarm.v1.Agent/GetImage")
        for host in ("n1", "n2", "n3")
    ]
    for target in targets:
        assert "was removed" not in asked(cluster, "n4", *target)
    cluster.run("n1", "node", "rm", "--force", "n4")
    for target in targets:
        eventually(lambda target=target: "PERMISSION_DENIED" in asked(cluster, "n4", *target), f"{target} refuses it")
        assert "was removed from the swarm" in asked(cluster, "n4", *target)
    eventually(lambda: "was removed" in cluster.run("n4", "info"), "it knows")
    # An agent that starts without a manager in reach still knows.
    cluster.lab.kill("n3", "pyswarmd")
    for host in MANAGERS:
        cluster.lab.cut(host)
    cluster.lab.start("n3")
    agent = targets[-1]
    eventually(lambda: "was removed from the swarm" in asked(cluster, "n4", *agent), "the agent alone refuses it")
    for host in MANAGERS:
        cluster.lab.heal(host)
    eventually(lambda: ready(cluster) == 3, "the others are well", within_s=150.0)

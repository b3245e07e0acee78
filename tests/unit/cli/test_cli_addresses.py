"""Flags of addresses, what `network inspect` shows of them, and `network prune` and `network rm`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cli_runner import Done, Run, run_cli
from fake_daemon import FakeDaemon

from pyswarm.v1 import control_pb2, ipam_pb2, types_pb2
from pyswarm_cli.parse.attachments import network
from pyswarm_cli.parse.pools import pools_with
from pyswarm_cli.views.network_usage import usage_json
from pyswarm_common.model import NetworkAttachmentSpec


class NetworkDaemon(FakeDaemon):
    """Knows networks, of which one is in use."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.networks = {
            name: types_pb2.Network(id=f"{name}id", spec=types_pb2.NetworkSpec(name=name, ingress=name == "ingress"))
            for name in ("ingress", "idle", "kept", "used")
        }
        self.networks["kept"].spec.labels["keep"] = "yes"
        self.cluster = types_pb2.Cluster(id="c", meta=types_pb2.Meta(version=3))
        self.cluster.spec.default_address_pools[:] = ["10.0.0.0/8", "fd00::/48"]

    def ListNetworks(self, request: Any, context: Any) -> Any:
        return control_pb2.ListNetworksResponse(networks=self.networks.values())

    def GetNetwork(self, request: Any, context: Any) -> Any:
        if request.network not in self.networks:
            context.abort(grpc.StatusCode.NOT_FOUND, f"network {request.network} not found")
        return control_pb2.GetNetworkResponse(network=self.networks[request.network])

    def CreateNetwork(self, request: Any, context: Any) -> Any:
        made = self.networks[request.spec.name] = types_pb2.Network(id="made", spec=request.spec)
        return control_pb2.CreateNetworkResponse(network=made)

    def RemoveNetwork(self, request: Any, context: Any) -> Any:
        name = request.network.removesuffix("id")
        if name == "used":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "network used is in use by service web")
        del self.networks[name]
        return control_pb2.RemoveNetworkResponse(network_id=request.network)

    def GetCluster(self, request: Any, context: Any) -> Any:
        return control_pb2.GetClusterResponse(cluster=self.cluster)

    def UpdateCluster(self, request: Any, context: Any) -> Any:
        self.cluster.spec.CopyFrom(request.spec)
        return control_pb2.UpdateClusterResponse(cluster=self.cluster)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[NetworkDaemon]:
    made = NetworkDaemon(tmp_path)
    yield made
    made.close()


@pytest.fixture
def run(daemon: NetworkDaemon, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs `pyswarm …` in this process, as `main` does."""

    def invoke(*argv: str) -> Done:
        return run_cli(capfd, "-H", daemon.address, *argv)

    return invoke


# ---- flags


def test_static_addresses_of_a_network_flag() -> None:
    assert network("name=net,alias=a,ip=10.0.1.10-10.0.1.12,ip=fd00::10,vip=10.0.1.100,vip=fd00::100") == (
        NetworkAttachmentSpec(
            target="net",
            aliases=("a",),
            addresses=("10.0.1.10-10.0.1.12", "fd00::10"),
            virtual_addresses=("10.0.1.100", "fd00::100"),
        )
    )


def test_pools_take_the_place_of_their_family_only() -> None:
    have = ["10.0.0.0/8", "fd00::/48"]
    assert pools_with(have, ["10.1.0.0/16,10.2.0.0/16"]) == ["fd00::/48", "10.1.0.0/16", "10.2.0.0/16"]
    assert pools_with(have, ["fd01::/48"]) == ["10.0.0.0/8", "fd01::/48"]
    assert pools_with(have, []) == have


def test_update_changes_pools_and_their_size(daemon: NetworkDaemon, run: Run) -> None:
    done = run("update", "--default-addr-pool", "10.77.0.0/16", "--default-addr-pool-mask-length", "26")
    assert (done.code, done.out) == (0, "Swarm updated.\n")
    assert list(daemon.cluster.spec.default_address_pools) == ["fd00::/48", "10.77.0.0/16"]
    assert daemon.cluster.spec.subnet_size == 26
    assert run("update").code != 0


# ---- what is shown


def test_inspect_shows_everybody_on_the_network() -> None:
    usage = ipam_pb2.NetworkUsage(
        subnets=[ipam_pb2.SubnetUsage(subnet="10.0.1.0/24", in_use=4, available=250)],
        members=[
            ipam_pb2.NetworkMember(
                task_id="t1",
                name="web.1",
                service_id="s1",
                container_id="c1",
                node_id="n1",
                hostname="worker",
                node_address="192.0.2.1",
                addresses=["10.0.1.3/24", "fd00::3/64"],
            ),
            ipam_pb2.NetworkMember(task_id="t2", name="box", node_id="n1", hostname="worker", node_address="192.0.2.1"),
        ],
        services=[ipam_pb2.NetworkService(service_id="s1", name="web", virtual_addresses=["10.0.1.2", "fd00::2"])],
        warnings=["mind the gap"],
    )
    shown = usage_json(usage)
    assert shown["Containers"]["c1"] == {
        "Name": "web.1.t1",
        "EndpointID": "t1",
        "Node": "worker",
        "IPv4Address": "10.0.1.3/24",
        "IPv6Address": "fd00::3/64",
    }
    assert shown["Containers"]["t2"]["Name"] == "box"
    assert shown["Services"]["web"]["VIP"] == "10.0.1.2,fd00::2"
    assert shown["Services"]["web"]["Tasks"][0]["EndpointIP"] == "10.0.1.3,fd00::3"
    assert shown["Peers"] == [{"Name": "worker", "IP": "192.0.2.1"}]
    assert shown["Status"] == {"IPAM": {"Subnets": {"10.0.1.0/24": {"IPsInUse": 4, "DynamicIPsAvailable": 250}}}}
    assert shown["Warnings"] == ["mind the gap"]


# ---- prune


def test_prune_removes_what_is_unused(daemon: NetworkDaemon, run: Run) -> None:
    done = run("network", "prune", "--force", "--filter", "label!=keep")
    assert (done.code, done.out) == (0, "Deleted Networks:\nidle\n\n")
    assert set(daemon.networks) == {"ingress", "kept", "used"}
    assert run("network", "prune", "-f", "--filter", "label=keep=yes").out == "Deleted Networks:\nkept\n\n"
    assert run("network", "prune", "-f").out == ""


def test_prune_minds_the_age(daemon: NetworkDaemon, run: Run) -> None:
    for item in daemon.networks.values():
        item.meta.created_at.FromSeconds(1_700_000_000)
    assert run("network", "prune", "-f", "--filter", "until=1600000000").out == ""
    assert run("network", "prune", "-f", "--filter", "until=1800000000").out == "Deleted Networks:\nidle\nkept\n\n"


@pytest.mark.parametrize(("answer", "is_done"), [("y\n", True), ("n\n", False), ("", False)])
def test_prune_asks(
    daemon: NetworkDaemon, run: Run, monkeypatch: pytest.MonkeyPatch, answer: str, is_done: bool
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    done = run("network", "prune")
    assert done.code == 0
    assert "Are you sure you want to continue? [y/N] " in done.out
    assert ("idle" not in daemon.networks) is is_done


def test_inspect_shows_what_is_there_beside_what_is_not(daemon: NetworkDaemon, run: Run) -> None:
    done = run("network", "inspect", "-v", "nowhere", "idle", "-f", "{{.Name}} {{.EnableIPv4}} {{.EnableIPv6}}")
    assert (done.code, done.out) == (1, "idle true false\n")
    assert done.err == "Error response from daemon: network nowhere not found\n"
    assert run("network", "inspect", "nowhere").out == "[]\n"


def test_flags_of_network_create_take_values(daemon: NetworkDaemon, run: Run) -> None:
    flags = ("--attachable=false", "--internal=true", "--ipv6=true", "--ipv4=false")
    assert run("network", "create", *flags, "--subnet", "fd00:5::/64", "made").code == 0
    spec = daemon.networks["made"].spec
    assert (spec.attachable, spec.internal, spec.ipv6, list(spec.subnets)) == (False, True, False, ["fd00:5::/64"])
    assert run("network", "create", "--ipv4=false", "alone").code == 1
    assert run("network", "create", "--ipv4", "usual").code == 0


def test_dockers_other_words(daemon: NetworkDaemon, run: Run) -> None:
    assert run("network", "list", "-q").out == run("network", "ls", "-q").out != ""
    assert run("network", "remove", "idle").out == "idle\n"
    assert "idle" not in daemon.networks
    done = run("task", "remove", "--bogus")
    assert (done.code, "'pyswarm task remove --help'" in done.err) == (125, True)

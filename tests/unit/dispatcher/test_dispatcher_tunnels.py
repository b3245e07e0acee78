"""Tunnel keys go to the nodes that share an encrypted network with their owner, and to nobody else."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from test_dispatcher_core import SPEC, Cluster, node, task

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.model import Cluster as ClusterObject
from pyswarm_common.model import (
    ClusterSpec,
    Network,
    NetworkAttachment,
    NetworkSpec,
    Node,
    NodeState,
    NodeStatus,
    Service,
    ServiceSpec,
    Task,
    TaskState,
    TaskStatus,
    TunnelKey,
)
from pyswarm_manager.store.changes import Create, SetNodeStatus, SetTaskStatus, Update, delete
from pyswarm_manager.store.tables import Kind


def with_key(one: Node, *numbers: int) -> Node:
    keys = tuple(TunnelKey(f"{one.id} {number}".encode().ljust(32), 51820, number) for number in numbers)
    return replace(one, description=replace(one.description, tunnel_keys=keys))


def sealed(task_id: str, node_id: str, slot: int) -> Task:
    attachment = NetworkAttachment(network_id="sealed", addresses=(f"10.0.2.{slot}/24",))
    return replace(task(task_id, node_id, slot), networks=(attachment,))


@pytest.fixture
def cluster() -> Cluster:
    """Four nodes with keys; n1 and n2 are on an encrypted network, n3 on a plain one, n4 on none."""
    made = Cluster()
    made.commit(
        Create(Network(id="net", spec=NetworkSpec(name="net"), vni=4097, subnets=("10.0.1.0/24",))),
        Create(
            Network(
                id="sealed",
                spec=NetworkSpec(name="sealed", driver="overlay", options={"encrypted": ""}),
                vni=4098,
                subnets=("10.0.2.0/24",),
            )
        ),
        *(Create(with_key(node(f"n{number}", f"192.0.2.{number}"), 1)) for number in range(1, 5)),
        Create(Service(id="svc", spec=ServiceSpec(name="web", task=SPEC))),
    )
    made.commit(
        Create(sealed("t1", "n1", 1)),
        Create(sealed("t2", "n2", 2)),
        Create(task("t3", "n3", 3)),
    )
    return made


def peers(message: pb.Assignments | None) -> dict[str, list[int]]:
    """Node -> numbers of its keys, of those that a message tells."""
    return {} if message is None else {peer.node_id: [key.number for key in peer.keys] for peer in message.update_peers}


def test_only_those_on_an_encrypted_network_are_told_and_only_of_one_another(cluster: Cluster) -> None:
    first = cluster.start("n1", "n2", "n3", "n4")
    assert {node_id: peers(message) for node_id, message in first.items()} == {
        "n1": {"n2": [1]},
        "n2": {"n1": [1]},
        "n3": {},
        "n4": {},
    }
    [told] = first["n1"].update_peers
    assert told.data_path_address == "192.0.2.2"
    assert first["n1"].tunnel_key_rotation_s == 12 * 3600
    assert first["n3"].tunnel_key_rotation_s == 0


def test_a_node_that_comes_onto_the_network_is_told_to_all_there_and_they_to_it(cluster: Cluster) -> None:
    cluster.start("n1", "n2", "n3", "n4")
    cluster.commit(Create(sealed("t4", "n4", 4)))
    assert peers(cluster.news("n4")) == {"n1": [1], "n2": [1]}
    assert peers(cluster.news("n1")) == peers(cluster.news("n2")) == {"n4": [1]}
    assert cluster.news("n3") is None
    cluster.commit(SetTaskStatus("t4", TaskStatus(state=TaskState.FAILED)))
    gone = cluster.news("n1")
    assert gone is not None
    assert list(gone.remove_peer_ids) == ["n4"]
    last = cluster.news("n4")
    assert last is not None
    assert sorted(last.remove_peer_ids) == ["n1", "n2"]


def test_new_keys_are_told_as_they_come_and_go(cluster: Cluster) -> None:
    cluster.start("n1", "n2", "n3")
    for numbers in ([1, 2], [2]):
        known = cluster.view.nodes["n1"]
        described = with_key(known, *numbers).description
        cluster.commit(SetNodeStatus("n1", known.status, described))
        assert peers(cluster.news("n2")) == {"n1": numbers}
        assert cluster.news("n1") is None
        assert cluster.news("n3") is None


def test_a_removed_node_is_taken_from_its_peers_at_once(cluster: Cluster) -> None:
    cluster.start("n1", "n2", "n3")
    assert cluster.tables is not None
    cluster.tables.tunnel_peers.take_changed()
    cluster.commit(delete(cluster.view.nodes["n2"]))
    assert cluster.tables.tunnel_peers.take_changed() == ["n1"]
    news = cluster.news("n1")
    assert news is not None
    assert list(news.remove_peer_ids) == ["n2"]


def says(cluster: Cluster, node_id: str, address: str, key_of: str, state: NodeState = NodeState.READY) -> None:
    """The node describes itself, truly or not."""
    known = cluster.view.nodes[node_id]
    claimed = replace(with_key(known, 1).description, data_path_address=address)
    keys = tuple(replace(key, public_key=f"{key_of} 1".encode().ljust(32)) for key in claimed.tunnel_keys)
    cluster.commit(SetNodeStatus(node_id, NodeStatus(state=state), replace(claimed, tunnel_keys=keys)))


@pytest.mark.parametrize(
    ("address", "key_of"), [("192.0.2.2", "n4"), ("192.0.2.4", "n2")], ids=["its address", "its key"]
)
def test_a_node_that_claims_to_be_another_gets_nothing_that_is_meant_for_that_one(
    cluster: Cluster, address: str, key_of: str
) -> None:
    cluster.start("n1", "n2", "n4")
    cluster.commit(Create(sealed("t4", "n4", 4)))
    assert peers(cluster.news("n1")) == {"n4": [1]}
    says(cluster, "n4", address, key_of)
    news = cluster.news("n1")
    assert news is not None
    assert sorted(news.remove_peer_ids) == ["n2", "n4"]
    says(cluster, "n4", "192.0.2.4", "n4")
    assert peers(cluster.news("n1")) == {"n2": [1], "n4": [1]}


def test_a_machine_that_joined_anew_takes_the_place_of_the_node_that_it_was(cluster: Cluster) -> None:
    cluster.start("n1")
    cluster.commit(Create(sealed("t4", "n4", 4)))
    says(cluster, "n2", "192.0.2.2", "n2", NodeState.DOWN)
    assert peers(cluster.news("n1")) == {"n4": [1]}
    says(cluster, "n4", "192.0.2.2", "n4")
    news = cluster.news("n1")
    assert news is not None
    assert (peers(news), list(news.remove_peer_ids)) == ({"n4": [1]}, ["n2"])


def test_what_does_not_concern_encrypted_networks_raises_nothing(cluster: Cluster) -> None:
    cluster.start("n1", "n2")
    assert cluster.tables is not None
    tunnels = cluster.tables.tunnel_peers
    tunnels.take_changed()
    before = tunnels.revision("n1")
    cluster.commit(Create(sealed("t5", "n1", 5)))  # it is on that network already
    cluster.commit(Create(task("t6", "n3", 6)), Create(with_key(node("n9", "192.0.2.9"), 1)))
    known = cluster.view.nodes["n3"]
    cluster.commit(SetNodeStatus("n3", known.status, with_key(known, 7).description))
    assert (tunnels.take_changed(), tunnels.revision("n1")) == ([], before)


def test_another_age_of_keys_is_told_to_those_that_have_any(cluster: Cluster) -> None:
    cluster.commit(Create(ClusterObject(id="c", spec=ClusterSpec(tunnel_key_rotation_s=7200.0))))
    assert cluster.start("n1", "n3")["n1"].tunnel_key_rotation_s == 7200
    known = cluster.view.cluster
    assert known is not None
    cluster.commit(Update(replace(known, spec=ClusterSpec(tunnel_key_rotation_s=3600.0))))
    news = cluster.news("n1")
    assert news is not None
    assert (news.tunnel_key_rotation_s, peers(news)) == (3600, {})
    assert cluster.news("n3") is None


def test_a_network_that_goes_takes_its_tunnels_along(cluster: Cluster) -> None:
    cluster.start("n1", "n2")
    for task_id in ("t1", "t2"):
        cluster.commit(SetTaskStatus(task_id, TaskStatus(state=TaskState.FAILED)))
    cluster.commit(delete(cluster.view.table(Kind.NETWORK)["sealed"]))
    news = cluster.news("n1")
    assert news is not None
    assert list(news.remove_peer_ids) == ["n2"]
    assert cluster.start("n1")["n1"].tunnel_key_rotation_s == 0


def test_tables_that_grew_tell_what_new_ones_do(cluster: Cluster) -> None:
    cluster.start("n1", "n2", "n3", "n4")
    cluster.commit(Create(sealed("t4", "n4", 4)))
    cluster.commit(SetTaskStatus("t2", TaskStatus(state=TaskState.FAILED)))
    assert cluster.tables is not None
    grown = {name: cluster.tables.tunnel_peers.peers_of(name) for name in ("n1", "n2", "n3", "n4")}
    cluster.start("n1", "n2", "n3", "n4")
    assert {name: cluster.tables.tunnel_peers.peers_of(name) for name in grown} == grown
    assert grown["n1"].keys() == {"n4"}

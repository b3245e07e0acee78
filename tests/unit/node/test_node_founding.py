"""What `init` may be asked for, and what it makes."""

from __future__ import annotations

import time

import pytest

from pyswarm.v1 import node_pb2
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.identity import JoinToken, root_digest
from pyswarm_common.model import Availability, ClusterSpec, NodeDescription, NodeRole
from pyswarm_node.founding import cluster_spec, found


def test_the_defaults() -> None:
    assert cluster_spec(node_pb2.InitRequest()) == ClusterSpec()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (node_pb2.InitRequest(default_address_pools=["10.0.0.0/33"]), "invalid default address pool"),
        (node_pb2.InitRequest(default_address_pools=["10.0.0.1/8"]), "invalid default address pool"),
        (node_pb2.InitRequest(default_address_pools=["10.0.0.0/8", "10.1.0.0/16"]), "overlap"),
        (node_pb2.InitRequest(default_address_pools=["10.0.0.0/24"], subnet_size=16), "out of range"),
        (node_pb2.InitRequest(subnet_size=31), "out of range"),
        (node_pb2.InitRequest(default_address_pools=["fd00::/80"]), "smaller than a subnet of size 64"),
        (node_pb2.InitRequest(data_path_port=80), "valid range"),
        (node_pb2.InitRequest(default_address_pools=[f"10.{n}.0.0/16" for n in range(65)]), "more than 64"),
    ],
)
def test_what_is_refused(request_: node_pb2.InitRequest, words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        cluster_spec(request_)
    assert words in str(refused.value)


def test_a_new_cluster() -> None:
    founding = found(
        ClusterSpec(),
        address="192.0.2.1",
        manager_address="192.0.2.1:2377",
        description=NodeDescription(),
        availability=Availability.DRAIN,
        now=time.time(),
    )
    cluster, node = founding.bootstrap.cluster, founding.bootstrap.node
    assert (founding.identity.node_id, founding.identity.cluster_id) == (node.id, cluster.id)
    assert founding.identity.role is node.role is node.spec.role is NodeRole.MANAGER
    assert node.spec.availability is Availability.DRAIN
    assert node.manager_status is not None
    assert node.manager_status.raft_id == founding.raft_id > 0
    tokens = [JoinToken.parse(text) for text in (cluster.join_tokens.worker, cluster.join_tokens.manager)]
    assert {token.digest for token in tokens} == {root_digest(cluster.root_ca_cert)}
    assert tokens[0].secret != tokens[1].secret


def test_a_cluster_has_pools_of_both_families() -> None:
    given = cluster_spec(node_pb2.InitRequest(default_address_pools=["fd12::/48"])).default_address_pools
    assert given == ("10.0.0.0/8", "fd12::/48")
    assert cluster_spec(node_pb2.InitRequest()).default_address_pools == ("10.0.0.0/8",)

"""The cluster object: read, changed, and written with the version that was read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyswarm.v1 import control_pb2
from pyswarm_cli.connection import Connection, call
from pyswarm_cli.overtaken import until_first


def read_cluster(connection: Connection) -> Any:
    """The cluster object, as the caller may see it."""
    return call(connection.control.GetCluster, control_pb2.GetClusterRequest()).cluster


def manager_address(connection: Connection) -> str:
    """This manager's own address, as others reach it."""
    node = call(connection.control.GetNode, control_pb2.GetNodeRequest(node=connection.own_node)).node
    return str(node.manager_status.address)


def change_cluster(
    connection: Connection, change: Callable[[Any], None], *, worker: bool = False, manager: bool = False
) -> Any:
    """Change the settings, or make new join tokens for a role. Returns the cluster as written."""

    def attempt() -> Any:
        cluster = read_cluster(connection)
        change(cluster.spec)
        request = control_pb2.UpdateClusterRequest(
            version=cluster.meta.version,
            spec=cluster.spec,
            rotate_worker_token=worker,
            rotate_manager_token=manager,
        )
        return call(connection.control.UpdateCluster, request).cluster

    return until_first(attempt)

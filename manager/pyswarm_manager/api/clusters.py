"""Writes of the cluster object, on the leader: its settings and its join tokens."""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm.v1 import control_pb2, types_pb2
from pyswarm_common.codec import to_proto
from pyswarm_common.errors import InvalidArgument, NotFound
from pyswarm_common.identity import JoinToken
from pyswarm_common.model import Cluster, ClusterSpec, JoinTokens
from pyswarm_manager.api.validate import check_cluster_spec, decode, refuse
from pyswarm_manager.store.changes import Update
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.trust import token_root
from pyswarm_manager.unlocking import key_for
from pyswarm_manager.writes import Writer

_FIXED = {
    "data_path_port": "the data path port is chosen at init and cannot change",
}


def get_cluster(view: Tables) -> Cluster:
    cluster = view.cluster
    if cluster is None:
        raise NotFound("this manager does not know its swarm yet: try again in a moment")
    return cluster


def without_secrets(cluster: Cluster) -> Cluster:
    """What may leave the managers: neither the root's key nor those that open backups and locked managers."""
    rotation = cluster.root_rotation
    shown = None if rotation is None else replace(rotation, root_ca_key=b"")
    return replace(cluster, root_rotation=shown, root_ca_key=b"", backup_key=b"", unlock_key=b"")


def without_tokens(cluster: Cluster) -> Cluster:
    """What everybody may know who may read at all: named one by one, so that no new field is shown by chance."""
    return Cluster(id=cluster.id, meta=cluster.meta, spec=cluster.spec, root_ca_cert=cluster.root_ca_cert)


def to_message(cluster: Cluster, *, for_admin: bool) -> types_pb2.Cluster:
    """For the wire: without secrets, and with every setting written out, so that a client can change just one. Only
    an admin sees what lets machines join."""
    message: types_pb2.Cluster = to_proto(without_secrets(cluster) if for_admin else without_tokens(cluster))
    message.spec.CopyFrom(to_proto(cluster.spec))
    return message


async def update_cluster(writer: Writer, request: control_pb2.UpdateClusterRequest) -> Cluster:
    cluster = get_cluster(writer.store.view)
    spec = cluster.spec
    if request.HasField("spec"):
        spec = decode(ClusterSpec, request.spec)
        refuse(check_cluster_spec(spec))
        _check_fixed(cluster.spec, spec)
    tokens = _rotated(cluster, worker=request.rotate_worker_token, manager=request.rotate_manager_token)
    meta = replace(cluster.meta, version=request.version)
    unlock_key = key_for(spec, cluster.unlock_key)
    changed = replace(cluster, spec=spec, join_tokens=tokens, unlock_key=unlock_key, meta=meta)
    await writer.store.propose([Update(changed)])
    return writer.store.view.cluster or changed


def _check_fixed(old: ClusterSpec, new: ClusterSpec) -> None:
    wrong = [(name, text) for name, text in _FIXED.items() if getattr(old, name) != getattr(new, name)]
    if wrong:
        raise InvalidArgument("; ".join(text for _, text in wrong), wrong)


def _rotated(cluster: Cluster, *, worker: bool, manager: bool) -> JoinTokens:
    """Whoever has an old token cannot join any more; nodes that joined with it stay."""

    def fresh() -> str:
        return str(JoinToken.generate(token_root(cluster)))

    tokens = cluster.join_tokens
    return JoinTokens(worker=fresh() if worker else tokens.worker, manager=fresh() if manager else tokens.manager)

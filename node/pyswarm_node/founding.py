"""What a new cluster and its first node are made of. Pure but for keys, ids and tokens, which come from the system."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass

from msgspec.structs import replace

from pyswarm.v1 import node_pb2
from pyswarm_common.backup.keys import KEY_BYTES
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.identity import (
    JoinToken,
    NodeIdentity,
    RootAuthority,
    generate_key,
    key_to_pem,
    make_csr,
    read_authority,
)
from pyswarm_common.model import (
    Availability,
    CertificateStatus,
    Cluster,
    ClusterSpec,
    JoinTokens,
    ManagerStatus,
    Node,
    NodeDescription,
    NodeRole,
    NodeSpec,
    NodeStatus,
)
from pyswarm_common.random_ids import new_id, new_raft_id
from pyswarm_manager.api.validate import check_cluster_spec
from pyswarm_manager.bootstrap import Bootstrap
from pyswarm_manager.planner.allocate.subnets import pools_of
from pyswarm_manager.store.network_claims import block
from pyswarm_manager.unlocking import key_for

_MAX_POOLS = 64


def cluster_spec(request: node_pb2.InitRequest) -> ClusterSpec:
    """Checks what `init` was asked for. Raises InvalidArgument."""
    defaults = ClusterSpec()
    subnet_size = request.subnet_size or defaults.subnet_size
    given = tuple(request.default_address_pools)
    _check_pools(given, subnet_size)
    pools = _of_both_families(given, defaults.default_address_pools)
    _check_pools(pools, subnet_size)
    port = request.data_path_port or defaults.data_path_port
    if not 1024 <= port <= 49151:
        raise InvalidArgument(f"Datapath port number must be in valid range (1024-49151): {port}")
    expiry_s = request.node_cert_expiry_s or defaults.node_cert_expiry_s
    spec = ClusterSpec(
        default_address_pools=pools,
        subnet_size=subnet_size,
        data_path_port=port,
        node_cert_expiry_s=expiry_s,
        autolock=request.autolock,
    )
    judged = ("node_cert_expiry_s", "default_address_pools")
    wrong = [text for field, text in check_cluster_spec(spec) if field.startswith(judged)]
    if wrong:
        raise InvalidArgument(wrong[0])
    return spec


def cluster_root(request: node_pb2.InitRequest, now: float) -> RootAuthority | None:
    """The operator's CA, checked; None: one is to be generated. Raises InvalidArgument."""
    if not request.root_ca_cert and not request.root_ca_key:
        return None
    return read_authority(request.root_ca_cert, request.root_ca_key, now)


def _check_pools(pools: tuple[str, ...], subnet_size: int) -> None:
    if len(pools) > _MAX_POOLS:
        raise InvalidArgument(f"{len(pools)} default address pools: more than {_MAX_POOLS}")
    networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for pool in pools:
        try:
            network = ipaddress.ip_network(pool)
        except ValueError as error:
            raise InvalidArgument(f"invalid default address pool {pool!r}: {error}") from error
        if network.version == 4 and not network.prefixlen <= subnet_size <= 29:
            raise InvalidArgument(
                f"subnet size {subnet_size} is out of range: it must be from {network.prefixlen} to 29"
            )
        for other in networks:
            if block(str(network)).touches(block(str(other))):
                raise InvalidArgument(f"default address pools {other} and {network} overlap")
        networks.append(network)


def _of_both_families(given: tuple[str, ...], defaults: tuple[str, ...]) -> tuple[str, ...]:
    """The pools asked for, with docker's of IPv4 where there are none; those of IPv6 follow from the cluster's id."""
    has_ipv4 = any(block(pool).version == 4 for pool in given)
    return given if has_ipv4 else (*defaults, *given)


@dataclass(frozen=True, slots=True, repr=False)
class Founding:
    """A new cluster."""

    bootstrap: Bootstrap
    identity: NodeIdentity
    raft_id: int


def found(
    spec: ClusterSpec,
    *,
    address: str,
    manager_address: str,
    description: NodeDescription,
    availability: Availability,
    now: float,
    root: RootAuthority | None = None,
) -> Founding:
    """Decides ids, keys, tokens and the first node."""
    cluster_id, node_id, raft_id = new_id(), new_id(), new_raft_id()
    root, key = root or RootAuthority.create(cluster_id, now), generate_key()
    certificate = root.issue(
        make_csr(key),
        node_id=node_id,
        cluster_id=cluster_id,
        role=NodeRole.MANAGER,
        now=now,
        lifetime_s=min(spec.node_cert_expiry_s, root.signing_certificate.not_valid_after_utc.timestamp() - now),
    )
    cluster = _cluster(cluster_id, _with_ipv6_pool(spec, cluster_id), root)
    node = Node(
        id=node_id,
        spec=NodeSpec(role=NodeRole.MANAGER, availability=availability),
        description=description,
        status=NodeStatus(address=address, changed_at=now),
        manager_status=ManagerStatus(raft_id=raft_id, address=manager_address),
        role=NodeRole.MANAGER,
        certificate=CertificateStatus(issuer=root.issuer, expires_at=now + spec.node_cert_expiry_s),
    )
    identity = NodeIdentity(certificate, key_to_pem(key), root.cert_pem)
    return Founding(Bootstrap(cluster, node), identity, raft_id)


def _with_ipv6_pool(spec: ClusterSpec, cluster_id: str) -> ClusterSpec:
    """Written out, so that its users see it and can change it."""
    ipv4 = [pool for pool in spec.default_address_pools if block(pool).version == 4]
    return replace(spec, default_address_pools=(*ipv4, *pools_of(spec, cluster_id, 6)))


def _cluster(cluster_id: str, spec: ClusterSpec, root: RootAuthority) -> Cluster:
    """With the secrets of its own, drawn now."""
    tokens = JoinTokens(worker=str(JoinToken.generate(root.cert_pem)), manager=str(JoinToken.generate(root.cert_pem)))
    return Cluster(
        id=cluster_id,
        spec=spec,
        root_ca_cert=root.cert_pem,
        root_ca_key=root.key_pem,
        root_ca_chain=root.chain_pem,
        join_tokens=tokens,
        backup_key=secrets.token_bytes(KEY_BYTES),
        unlock_key=key_for(spec, b""),
    )

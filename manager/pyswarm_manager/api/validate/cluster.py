"""What the cluster may be told about itself."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pyswarm_common.model import ClusterSpec
from pyswarm_manager.api.validate.addressing import IPNetwork, parse_subnet
from pyswarm_manager.api.validate.fields import Violation, check_count, check_name, each
from pyswarm_manager.planner.allocate.subnets import subnet_size
from pyswarm_manager.store.network_claims import block

MIN_CERT_EXPIRY_S = 3600.0
_MAX_CERT_EXPIRY_S = 10 * 365 * 24 * 3600.0
_MAX_HISTORY = 1_000
_MAX_POOLS = 64
MAX_MANAGERS = 15
_MAX_GRACE_S = 24 * 3600.0
_MAX_ORPHAN_S = 365 * 24 * 3600.0
_MIN_BACKUP_INTERVAL_S = 60.0
_MAX_BACKUP_INTERVAL_S = 365 * 24 * 3600.0
_MAX_BACKUPS = 1_000
_MIN_ROTATION_S, _MAX_ROTATION_S = 60.0, 30 * 24 * 3600.0


def check_cluster_spec(spec: ClusterSpec) -> Iterator[Violation]:
    yield from check_name(spec.name)
    if spec.task_history_limit > _MAX_HISTORY:
        yield "task_history_limit", f"the task history limit must be between 0 and {_MAX_HISTORY}"
    if spec.revision_limit > _MAX_HISTORY:
        yield "revision_limit", f"at most {_MAX_HISTORY} specs are kept of each service"
    if math.isnan(spec.heartbeat_period_s) or not 0.1 <= spec.heartbeat_period_s <= 3600:
        yield "heartbeat_period_s", "the heartbeat period must be between 100ms and 1h"
    if math.isnan(spec.node_cert_expiry_s) or spec.node_cert_expiry_s < MIN_CERT_EXPIRY_S:
        yield "node_cert_expiry_s", "minimum certificate expiry time must be 1h"
    elif spec.node_cert_expiry_s > _MAX_CERT_EXPIRY_S:
        yield "node_cert_expiry_s", "the certificate expiry time must be at most ten years"
    yield from _check_backups(spec)
    if spec.managers > MAX_MANAGERS:
        yield "managers", f"at most {MAX_MANAGERS} managers: more only slow each other down"
    grace_s = spec.dead_manager_grace_s
    if math.isnan(grace_s) or (grace_s != 0 and not 5 <= grace_s <= _MAX_GRACE_S):
        yield "dead_manager_grace_s", "the grace of a dead manager must be between 5s and 24h"
    if math.isnan(spec.orphan_after_s) or (spec.orphan_after_s and not 1 <= spec.orphan_after_s <= _MAX_ORPHAN_S):
        yield "orphan_after_s", "tasks of a lost node are given up after between 1s and a year"
    rotation_s = spec.tunnel_key_rotation_s
    if math.isnan(rotation_s) or (rotation_s and not _MIN_ROTATION_S <= rotation_s <= _MAX_ROTATION_S):
        yield "tunnel_key_rotation_s", "tunnel keys are replaced after between 1m and 30 days"
    yield from _check_pools(spec)
    if not 1024 <= spec.data_path_port <= 49151:
        yield "data_path_port", "the data path port must be between 1024 and 49151"


def _check_backups(spec: ClusterSpec) -> Iterator[Violation]:
    interval_s = spec.backup_interval_s
    if interval_s == 0:
        return
    if math.isnan(interval_s) or not _MIN_BACKUP_INTERVAL_S <= interval_s <= _MAX_BACKUP_INTERVAL_S:
        yield "backup_interval_s", "the time between automatic backups must be between 1m and a year, or 0 for none"
    if not 1 <= spec.backups_kept <= _MAX_BACKUPS:
        yield "backups_kept", f"between 1 and {_MAX_BACKUPS} automatic backups can be kept"


def _check_pools(spec: ClusterSpec) -> Iterator[Violation]:
    yield from check_count(spec.default_address_pools, _MAX_POOLS, "default_address_pools", "address pools")
    if not 8 <= spec.subnet_size <= 30:
        yield "subnet_size", "the subnet size must be between 8 and 30"
    pools: list[IPNetwork] = []
    for index, text in enumerate(spec.default_address_pools[:_MAX_POOLS]):
        pool = parse_subnet(text)
        if isinstance(pool, str):
            yield from each("default_address_pools", index, [("", pool)])
            continue
        size = subnet_size(spec, pool.version)
        if pool.prefixlen > size:
            yield f"default_address_pools[{index}]", f"pool {pool} is smaller than a subnet of size {size}"
        twin = next((other for other in pools if block(str(other)).touches(block(text))), None)
        if twin is not None:
            yield f"default_address_pools[{index}]", f"default address pools {twin} and {pool} overlap"
        pools.append(pool)
    if pools and not any(pool.version == 4 for pool in pools):
        yield "default_address_pools", "one of the default address pools must be of IPv4"

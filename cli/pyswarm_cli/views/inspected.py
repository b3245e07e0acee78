"""Objects in docker's JSON shape, for `inspect` and its templates. Pure: model values in, plain values out."""

from __future__ import annotations

import base64
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pyswarm_cli.output.words import iso_time
from pyswarm_cli.views import node_resources
from pyswarm_cli.views.modes import autoscale_json, mode_json, status_json
from pyswarm_common.identity.authority import key_identifier
from pyswarm_common.identity.roots import read_bundle
from pyswarm_common.model import (
    CertificateStatus,
    Cluster,
    ContainerSpec,
    EndpointSpec,
    HealthCheck,
    Meta,
    Network,
    Node,
    NodeState,
    PortConfig,
    Resources,
    RestartPolicy,
    Service,
    ServiceSpec,
    Task,
    TaskSpec,
    UpdateConfig,
    UpdateStatus,
)

Json = dict[str, Any]
_NANO = 1_000_000_000


def _word(value: Any) -> str:
    return str(value.name).lower().replace("_", "-")


def _given(**values: Any) -> Json:
    """Without what is empty: docker leaves that out as well."""
    return {name: value for name, value in values.items() if value not in (None, "", 0, [], {}, False)}


def _nanos(seconds: float | None) -> int:
    return round((seconds or 0.0) * _NANO)


def _meta(identifier: str, meta: Meta) -> Json:
    return {
        "ID": identifier,
        "Version": {"Index": meta.version},
        "CreatedAt": iso_time(meta.created_at),
        "UpdatedAt": iso_time(meta.updated_at),
    }


def _resources(resources: Resources) -> Json:
    return node_resources.shown(resources)


# ---------------------------------------------------------------- nodes


def node(value: Node, roots: bytes = b"", resources: Any = None) -> Json:
    """`node inspect`. `roots`: every root that the swarm trusts now (PEM), for what docker tells of a node's TLS.
    `resources`: what is reserved and free, as the manager counts it."""
    about = value.description
    out = {
        **_meta(value.id, value.meta),
        "Spec": {
            "Labels": dict(value.spec.labels),
            "Role": _word(value.spec.role),
            "Availability": _word(value.spec.availability),
            **_given(DrainDeadline=_nanos(value.spec.drain_deadline_s)),
        },
        "Description": {
            "Hostname": about.hostname,
            "Platform": {"Architecture": about.architecture, "OS": about.os},
            "Resources": _resources(about.resources),
            "Engine": _given(EngineVersion=about.engine_version, Labels=dict(about.engine_labels)),
            "DataPathAddr": about.data_path_address,
            "Capabilities": dict(about.capabilities),
            "TLSInfo": _tls(value.certificate, roots),
        },
        "Status": _given(
            State="ready" if value.status.state is NodeState.SUSPECT else _word(value.status.state),
            Message=value.status.message,
            Addr=value.status.address,
        ),
        "Role": _word(value.role),
    }
    if value.drain_started_at:
        out["DrainStartedAt"] = iso_time(value.drain_started_at)
    if resources is not None:
        out["Resources"] = node_resources.inspected(resources)
    status = value.manager_status
    if status is not None:
        reachability = "reachable" if status.reachable or status.leader else "unreachable"
        reachability = "learner" if status.learner and status.reachable else reachability
        out["ManagerStatus"] = {"Leader": status.leader, "Reachability": reachability, "Addr": status.address}
    return out


def _tls(certificate: CertificateStatus, roots: bytes) -> Json:
    """The certificate that the node showed last, and the root behind it if that signed it directly."""
    out = _given(
        CertIssuer=certificate.issuer,
        CertExpiresAt=iso_time(certificate.expires_at) if certificate.expires_at else "",
        RotationPending=bool(certificate.renew_from),
    )
    for root in read_bundle(roots) if roots else ():
        if key_identifier(root).hex() == certificate.issuer:
            key = root.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            out |= {
                "TrustRoot": root.public_bytes(Encoding.PEM).decode(),
                "CertIssuerSubject": base64.b64encode(root.subject.public_bytes()).decode(),
                "CertIssuerPublicKey": base64.b64encode(key).decode(),
            }
    return out


# ---------------------------------------------------------------- services


def service(value: Service) -> Json:
    """`service inspect`."""
    out = {
        **_meta(value.id, value.meta),
        "Spec": service_spec(value.spec),
        "Endpoint": {
            "Spec": _endpoint_spec(value.spec.endpoint),
            "Ports": [_port(port) for port in value.endpoint.ports],
            "VirtualIPs": [{"NetworkID": vip.network_id, "Addr": vip.address} for vip in value.endpoint.vips],
        },
    }
    if value.previous_spec is not None:
        out["PreviousSpec"] = service_spec(value.previous_spec)
    if value.update_status is not None and value.update_status.state:
        out["UpdateStatus"] = _update_status(value.update_status)
    return {**out, **status_json(value)}


def _update_status(status: UpdateStatus) -> Json:
    return {
        "State": _word(status.state),
        "StartedAt": iso_time(status.started_at),
        "CompletedAt": iso_time(status.completed_at),
        "Message": status.message,
    }


def service_spec(spec: ServiceSpec) -> Json:
    """The spec of a service."""
    return {
        "Name": spec.name,
        "Labels": dict(spec.labels),
        "TaskTemplate": task_spec(spec.task),
        "Mode": mode_json(spec),
        **({"Autoscale": autoscale_json(spec.autoscale)} if spec.autoscale else {}),
        **({"UpdateConfig": _update_config(spec.update)} if spec.update else {}),
        **({"RollbackConfig": _update_config(spec.rollback)} if spec.rollback else {}),
        "EndpointSpec": _endpoint_spec(spec.endpoint),
    }


def task_spec(spec: TaskSpec) -> Json:
    """The template of a service's tasks."""
    limits = {**_resources(spec.resources.limits), **_given(Pids=spec.resources.limits.pids)}
    placement = _given(
        Constraints=list(spec.placement.constraints),
        Preferences=[{"Spread": {"SpreadDescriptor": item.spread_descriptor}} for item in spec.placement.preferences],
        MaxReplicas=spec.placement.max_replicas_per_node,
    )
    return {
        "ContainerSpec": _container(spec.container),
        "Resources": {"Limits": limits, "Reservations": _resources(spec.resources.reservations)},
        "RestartPolicy": _restart(spec.restart),
        "Placement": placement,
        "Networks": [_given(Target=item.target, Aliases=list(item.aliases)) for item in spec.networks],
        "ForceUpdate": spec.force_update,
    }


def _container(spec: ContainerSpec) -> Json:
    mounts = [
        _given(Type=_word(item.type), Source=item.source, Target=item.target, ReadOnly=item.read_only)
        for item in spec.mounts
    ]
    grace = None if spec.stop_grace_period_s is None else _nanos(spec.stop_grace_period_s)
    return _given(
        Image=spec.image,
        Command=list(spec.command),
        Args=list(spec.args),
        Env=list(spec.env),
        Hostname=spec.hostname,
        Dir=spec.dir,
        User=spec.user,
        Labels=dict(spec.labels),
        Mounts=mounts,
        StopSignal=spec.stop_signal,
        StopGracePeriod=grace,
        Healthcheck=_health(spec.healthcheck),
        DNSConfig=_given(Nameservers=list(spec.dns)),
        Hosts=list(spec.hosts),
        Init=spec.init,
        TTY=spec.tty,
        ReadOnly=spec.read_only,
        CapabilityAdd=list(spec.cap_add),
        CapabilityDrop=list(spec.cap_drop),
        Sysctls=dict(spec.sysctls),
    )


def _health(check: HealthCheck | None) -> Json | None:
    if check is None:
        return None
    return _given(
        Test=list(check.test),
        Interval=_nanos(check.interval_s),
        Timeout=_nanos(check.timeout_s),
        StartPeriod=_nanos(check.start_period_s),
        Retries=check.retries,
    )


def _restart(policy: RestartPolicy) -> Json:
    delay = {} if policy.delay_s is None else {"Delay": _nanos(policy.delay_s)}
    return {
        "Condition": _word(policy.condition),
        **delay,
        "MaxAttempts": policy.max_attempts,
        **_given(Window=_nanos(policy.window_s)),
    }


def _update_config(config: UpdateConfig) -> Json:
    monitor = {} if config.monitor_s is None else {"Monitor": _nanos(config.monitor_s)}
    return {
        "Parallelism": config.parallelism,
        "Delay": _nanos(config.delay_s),
        "FailureAction": _word(config.failure_action),
        **monitor,
        "MaxFailureRatio": config.max_failure_ratio,
        "Order": _word(config.order),
    }


def _endpoint_spec(spec: EndpointSpec) -> Json:
    return {"Mode": _word(spec.mode), **_given(Ports=[_port(port) for port in spec.ports])}


def _port(port: PortConfig) -> Json:
    return _given(
        Name=port.name,
        Protocol=_word(port.protocol),
        TargetPort=port.target_port,
        PublishedPort=port.published_port,
        PublishMode=_word(port.publish_mode),
    )


# ---------------------------------------------------------------- tasks, networks, the cluster


def task(value: Task) -> Json:
    """A task, as `docker inspect` shows it."""
    status = _given(
        Timestamp=iso_time(value.status.timestamp),
        State=_word(value.status.state),
        Message=value.status.message,
        Err=value.status.err,
    )
    container = value.status.container
    if container is not None:
        status["ContainerStatus"] = {
            "ContainerID": container.container_id,
            "PID": container.pid,
            "ExitCode": container.exit_code,
        }
    return {
        **_meta(value.id, value.meta),
        "Spec": task_spec(value.spec),
        "ServiceID": value.service_id,
        "Slot": value.slot,
        "NodeID": value.node_id,
        "Status": status,
        "DesiredState": _word(value.desired_state),
        "NetworksAttachments": [
            {"Network": {"ID": item.network_id}, "Addresses": list(item.addresses)} for item in value.networks
        ],
    }


def network(value: Network) -> Json:
    """`network inspect`."""
    gateways = [*value.gateways, *[""] * len(value.subnets)]
    pools = [_given(Subnet=subnet, Gateway=gateways[index]) for index, subnet in enumerate(value.subnets)]
    return {
        "Name": value.spec.name,
        "Id": value.id,
        "ID": value.id,
        "Created": iso_time(value.meta.created_at),
        "Scope": "swarm",
        "Driver": value.spec.driver or "overlay",
        "IPAM": {"Driver": "default", "Config": pools},
        "Internal": value.spec.internal,
        "Attachable": value.spec.attachable,
        "Ingress": value.spec.ingress,
        "Options": {"com.docker.network.driver.overlay.vxlanid_list": str(value.vni), **value.spec.options},
        "Labels": dict(value.spec.labels),
    }


def cluster(value: Cluster) -> Json:
    """The swarm itself; never its keys or tokens."""
    spec = value.spec
    return {
        **_meta(value.id, value.meta),
        "Spec": {
            "Name": spec.name,
            "Orchestration": {"TaskHistoryRetentionLimit": spec.task_history_limit},
            "Dispatcher": {"HeartbeatPeriod": _nanos(spec.heartbeat_period_s)},
            "CAConfig": {"NodeCertExpiry": _nanos(spec.node_cert_expiry_s)},
            "Backups": {"Interval": _nanos(spec.backup_interval_s), "Kept": spec.backups_kept},
            "Managers": {"Wanted": spec.managers, "DeadGrace": _nanos(spec.manager_grace_s)},
            "OrphanAfter": _nanos(spec.orphan_grace_s),
        },
        "DefaultAddrPool": list(spec.default_address_pools),
        "SubnetSize": spec.subnet_size,
        "DataPathPort": spec.data_path_port,
        "TLSInfo": {"TrustRoot": value.root_ca_cert.decode()},
        "RootRotationInProgress": value.root_rotation is not None,
    }

"""Objects in docker's JSON shape, for `inspect` and its templates. Pure: model values in, plain values out."""

from __future__ import annotations

import base64
from ipaddress import ip_address, ip_network
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pyswarm_cli.output.words import iso_time
from pyswarm_cli.views import node_resources
from pyswarm_cli.views.modes import autoscale_json, mode_json, status_json
from pyswarm_cli.views.networks import PREDEFINED, has_ipv4, has_ipv6
from pyswarm_cli.views.shapes import Json, given, nanos, word
from pyswarm_cli.views.task_specs import task_spec
from pyswarm_common.identity.authority import key_identifier
from pyswarm_common.identity.roots import read_bundle
from pyswarm_common.model import (
    CertificateStatus,
    Cluster,
    EndpointSpec,
    IngressPolicy,
    Meta,
    Network,
    Node,
    NodeState,
    PortConfig,
    Service,
    ServiceSpec,
    SessionAffinity,
    Taint,
    Task,
    UpdateConfig,
    UpdateStatus,
)


def _meta(identifier: str, meta: Meta) -> Json:
    return {
        "ID": identifier,
        "Version": {"Index": meta.version},
        "CreatedAt": iso_time(meta.created_at),
        "UpdatedAt": iso_time(meta.updated_at),
    }


# ---------------------------------------------------------------- nodes


def node(value: Node, roots: bytes = b"", resources: Any = None) -> Json:
    """`node inspect`. `roots`: every root that the swarm trusts now (PEM), for what docker tells of a node's TLS.
    `resources`: what is reserved and free, as the manager counts it."""
    about = value.description
    out = {
        **_meta(value.id, value.meta),
        "Spec": {
            "Labels": dict(value.spec.labels),
            "Role": word(value.spec.role),
            "Availability": word(value.spec.availability),
            **given(DrainDeadline=nanos(value.spec.drain_deadline_s)),
            **given(Taints=[_taint(taint) for taint in value.spec.taints]),
        },
        "Description": {
            "Hostname": about.hostname,
            "Platform": {"Architecture": about.architecture, "OS": about.os},
            "Resources": node_resources.shown(about.resources),
            "Engine": given(
                EngineVersion=about.engine_version,
                Labels=dict(about.engine_labels),
                Plugins=[{"Type": plugin.type, "Name": plugin.name} for plugin in about.plugins],
            ),
            **given(Devices=list(about.devices)),
            "DataPathAddr": about.data_path_address,
            "Capabilities": dict(about.capabilities),
            "TLSInfo": _tls(value.certificate, roots),
        },
        "Status": given(
            State="ready" if value.status.state is NodeState.SUSPECT else word(value.status.state),
            Message=value.status.message,
            Addr=value.status.address,
        ),
        "Role": word(value.role),
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
    out = given(
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
    out |= given(Revision=value.revision, AwaitsDependencies=value.awaits_dependencies)
    return {**out, **status_json(value)}


def _update_status(status: UpdateStatus) -> Json:
    return {
        "State": word(status.state),
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
        **given(
            DependsOn=[{"Service": item.service, "Condition": word(item.condition)} for item in spec.depends_on],
            Stopped=spec.stopped,
            Priority=spec.priority,
            Rebalance=spec.rebalance,
        ),
    }


def _update_config(config: UpdateConfig) -> Json:
    monitor = {} if config.monitor_s is None else {"Monitor": nanos(config.monitor_s)}
    return {
        "Parallelism": config.parallelism,
        "Delay": nanos(config.delay_s),
        "FailureAction": word(config.failure_action),
        **monitor,
        "MaxFailureRatio": config.max_failure_ratio,
        "Order": word(config.order),
    }


def _endpoint_spec(spec: EndpointSpec) -> Json:
    ports = [_port(port) for port in spec.ports]
    affinity = "" if spec.session_affinity is SessionAffinity.NONE else word(spec.session_affinity)
    shown = given(Ports=ports, SessionAffinity=affinity, AllowFrom=list(spec.allow_from))
    return {"Mode": word(spec.mode), **shown}


def _port(port: PortConfig) -> Json:
    return given(
        Name=port.name,
        Protocol=word(port.protocol),
        TargetPort=port.target_port,
        PublishedPort=port.published_port,
        PublishMode=word(port.publish_mode),
        HostIP=port.host_ip,
        Policy=word(port.policy) if port.policy is not IngressPolicy.SPREAD else "",
        ProxyProtocol=port.proxy_protocol,
    )


# ---------------------------------------------------------------- tasks, networks, the cluster


def task(value: Task) -> Json:
    """A task, as `docker inspect` shows it."""
    status = given(
        Timestamp=iso_time(value.status.timestamp),
        State=word(value.status.state),
        Message=value.status.message,
        Err=value.status.err,
    )
    container = value.status.container
    if container is not None:
        status["ContainerStatus"] = {
            "ContainerID": container.container_id,
            "PID": container.pid,
            "ExitCode": container.exit_code,
            **given(OOMKilled=container.oom_killed, Health="" if not container.health else word(container.health)),
        }
    return {
        **_meta(value.id, value.meta),
        "Spec": task_spec(value.spec),
        "ServiceID": value.service_id,
        "Slot": value.slot,
        "NodeID": value.node_id,
        "Status": status,
        "DesiredState": word(value.desired_state),
        "NetworksAttachments": [
            {"Network": {"ID": item.network_id}, "Addresses": list(item.addresses)} for item in value.networks
        ],
        **given(
            AssignedGenericResources=[node_resources.generic(item) for item in value.generic_resources],
            Replaces=value.replaces,
            Cause=value.cause,
            FailuresInRow=value.failures_in_row,
            StartAt=iso_time(value.start_at) if value.start_at else "",
        ),
    }


def _taint(value: Taint) -> Json:
    return {"Key": value.key, "Value": value.value, "Effect": value.effect.name.lower().replace("_", "-")}


def network(value: Network) -> Json:
    """`network inspect`."""
    spec = value.spec
    vni = {"com.docker.network.driver.overlay.vxlanid_list": str(value.vni)} if value.vni else {}
    return {
        "Name": spec.name,
        "Id": value.id,
        "ID": value.id,
        "Created": iso_time(value.meta.created_at),
        "Scope": "local" if spec.config_only or spec.name in PREDEFINED else "swarm",
        "Driver": spec.driver or "overlay",
        "EnableIPv4": has_ipv4(value.subnets or spec.subnets),
        "EnableIPv6": has_ipv6(value.subnets, asked=spec.ipv6),
        "IPAM": {
            "Driver": spec.ipam_driver or "default",
            "Options": dict(spec.ipam_options) or None,
            "Config": _address_pools(value),
        },
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": spec.config_from},
        "ConfigOnly": spec.config_only,
        "Options": {**vni, **spec.options},
        "Labels": dict(spec.labels),
    }


def _address_pools(value: Network) -> list[Json]:
    """Each subnet with its gateway, and with the ranges and addresses that lie in it."""
    gateways = [*value.gateways, *[""] * len(value.subnets)]
    pools = []
    for index, subnet in enumerate(value.subnets):
        whole = ip_network(subnet)
        ranges = [text for text in value.spec.ip_ranges if text and ip_network(text)[0] in whole]
        taken = {name: text for name, text in value.spec.auxiliary_addresses.items() if ip_address(text) in whole}
        pools.append(
            given(
                Subnet=subnet,
                IPRange=ranges[0] if ranges else "",
                Gateway=gateways[index],
                AuxiliaryAddresses=taken,
            )
        )
    return pools


def cluster(value: Cluster) -> Json:
    """The swarm itself; never its keys or tokens."""
    spec = value.spec
    return {
        **_meta(value.id, value.meta),
        "Spec": {
            "Name": spec.name,
            "Orchestration": {"TaskHistoryRetentionLimit": spec.task_history_limit},
            "Dispatcher": {"HeartbeatPeriod": nanos(spec.heartbeat_period_s)},
            "CAConfig": {"NodeCertExpiry": nanos(spec.node_cert_expiry_s)},
            "Backups": {"Interval": nanos(spec.backup_interval_s), "Kept": spec.backups_kept},
            "Managers": {"Wanted": spec.managers, "DeadGrace": nanos(spec.manager_grace_s)},
            "OrphanAfter": nanos(spec.orphan_grace_s),
            "TunnelKeyRotation": nanos(spec.tunnel_rotation_s),
        },
        "DefaultAddrPool": list(spec.default_address_pools),
        "SubnetSize": spec.subnet_size,
        "DataPathPort": spec.data_path_port,
        "TLSInfo": {"TrustRoot": value.root_ca_cert.decode()},
        "RootRotationInProgress": value.root_rotation is not None,
    }

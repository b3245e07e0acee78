"""The template of a service's tasks in docker's JSON shape. Pure: model values in, plain values out.

Fields that docker has are named and nested as docker's; ours beside them follow its style. A registry's credentials are
never shown.
"""

from __future__ import annotations

import base64

from pyswarm_cli.views.node_resources import shown
from pyswarm_cli.views.shapes import Json, given, nanos, word
from pyswarm_common.model import (
    ContainerSpec,
    FileReference,
    HealthCheck,
    LogDriver,
    Mount,
    Placement,
    PlacementStrategy,
    ResourceRequirements,
    RestartPolicy,
    TaskSpec,
)

_UNCONFINED = "unconfined"


def task_spec(spec: TaskSpec) -> Json:
    """All of it."""
    networks = [
        given(Target=item.target, Aliases=list(item.aliases), DriverOpts=dict(item.driver_options))
        for item in spec.networks
    ]
    return {
        "ContainerSpec": container_spec(spec.container),
        "Resources": _requirements(spec.resources),
        "RestartPolicy": _restart(spec.restart),
        "Placement": _placement(spec.placement),
        "Networks": networks,
        **({"LogDriver": _log_driver(spec.container.log_driver)} if spec.container.log_driver else {}),
        "ForceUpdate": spec.force_update,
    }


def _requirements(wanted: ResourceRequirements) -> Json:
    found: Json = {
        "Limits": shown(wanted.limits),
        "Reservations": shown(wanted.reservations),
    }
    if wanted.memory_swap_bytes is not None:
        found["SwapBytes"] = wanted.memory_swap_bytes
    if wanted.memory_swappiness is not None:
        found["MemorySwappiness"] = wanted.memory_swappiness
    return found


def _placement(placement: Placement) -> Json:
    affinities = [
        given(Service=item.service, Anti=item.anti, Topology=item.topology, Weight=item.weight)
        for item in placement.affinities
    ]
    tolerations = [
        given(Key=item.key, Value=item.value, Effects=[word(effect) for effect in item.effects])
        for item in placement.tolerations
    ]
    strategy = None if placement.strategy is PlacementStrategy.DEFAULT else word(placement.strategy)
    return given(
        Constraints=list(placement.constraints),
        Preferences=[{"Spread": {"SpreadDescriptor": item.spread_descriptor}} for item in placement.preferences],
        MaxReplicas=placement.max_replicas_per_node,
        Platforms=[given(Architecture=item.architecture, OS=item.os) for item in placement.platforms],
        Tolerations=tolerations,
        Affinities=affinities,
        Strategy=strategy,
    )


def _restart(policy: RestartPolicy) -> Json:
    delay = {} if policy.delay_s is None else {"Delay": nanos(policy.delay_s)}
    return {
        "Condition": word(policy.condition),
        **delay,
        "MaxAttempts": policy.max_attempts,
        **given(Window=nanos(policy.window_s), MaxDelay=nanos(policy.max_delay_s)),
    }


def container_spec(spec: ContainerSpec) -> Json:
    """What a container is."""
    grace = None if spec.stop_grace_period_s is None else nanos(spec.stop_grace_period_s)
    return given(
        Image=spec.image,
        Command=list(spec.command),
        Args=list(spec.args),
        Env=list(spec.env),
        Hostname=spec.hostname,
        Dir=spec.dir,
        User=spec.user,
        Groups=list(spec.groups),
        Labels=dict(spec.labels),
        Mounts=[_mount(mount) for mount in spec.mounts],
        StopSignal=spec.stop_signal,
        StopGracePeriod=grace,
        Healthcheck=_health(spec.healthcheck),
        DNSConfig=given(Nameservers=list(spec.dns), Search=list(spec.dns_search), Options=list(spec.dns_options)),
        Hosts=list(spec.hosts),
        Init=spec.init,
        TTY=spec.tty,
        OpenStdin=spec.stdin_open,
        ReadOnly=spec.read_only,
        CapabilityAdd=list(spec.cap_add),
        CapabilityDrop=list(spec.cap_drop),
        Sysctls=dict(spec.sysctls),
        Ulimits=[{"Name": limit.name, "Hard": limit.hard, "Soft": limit.soft} for limit in spec.ulimits],
        OomScoreAdj=spec.oom_score_adj,
        Isolation=spec.isolation,
        Privileged=spec.privileged,
        Privileges=_privileges(spec),
        Devices=[
            {
                "PathOnHost": device.host_path,
                "PathInContainer": device.container_path or device.host_path,
                "CgroupPermissions": device.permissions or "rwm",
            }
            for device in spec.devices
        ],
        ShmSize=spec.shm_size_bytes,
        PidMode=spec.pid_mode,
        IpcMode=spec.ipc_mode,
        Secrets=[_file("Secret", reference) for reference in spec.secrets],
        Configs=[_file("Config", reference) for reference in spec.configs],
    )


def _mount(mount: Mount) -> Json:
    return given(
        Type=word(mount.type),
        Source=mount.source,
        Target=mount.target,
        ReadOnly=mount.read_only,
        BindOptions=given(Propagation=mount.bind_propagation, NonRecursive=mount.bind_non_recursive),
        VolumeOptions=given(
            NoCopy=mount.volume_no_copy,
            Labels=dict(mount.volume_labels),
            DriverConfig=given(Name=mount.volume_driver, Options=dict(mount.volume_options)),
            Subpath=mount.volume_subpath,
        ),
        TmpfsOptions=given(SizeBytes=mount.tmpfs_size_bytes, Mode=mount.tmpfs_mode),
    )


def _health(check: HealthCheck | None) -> Json | None:
    if check is None:
        return None
    return given(
        Test=list(check.test),
        Interval=nanos(check.interval_s),
        Timeout=nanos(check.timeout_s),
        StartPeriod=nanos(check.start_period_s),
        StartInterval=nanos(check.start_interval_s),
        Retries=check.retries,
    )


def _privileges(spec: ContainerSpec) -> Json:
    seccomp: Json = {}
    if spec.seccomp_profile == _UNCONFINED:
        seccomp = {"Mode": _UNCONFINED}
    elif spec.seccomp_profile:
        seccomp = {"Mode": "custom", "Profile": base64.b64encode(spec.seccomp_profile.encode()).decode()}
    apparmor: Json = {}
    if spec.apparmor_profile == _UNCONFINED:
        apparmor = {"Mode": "disabled"}
    elif spec.apparmor_profile:
        apparmor = {"Mode": "profile", "Profile": spec.apparmor_profile}
    return given(Seccomp=seccomp, AppArmor=apparmor, NoNewPrivileges=spec.no_new_privileges)


def _log_driver(driver: LogDriver) -> Json:
    return given(Name=driver.name, Options=dict(driver.options))


def _file(kind: str, reference: FileReference) -> Json:
    """Docker's reference, and what we have beside it."""
    target = {"Name": reference.target, "UID": reference.uid, "GID": reference.gid, "Mode": reference.mode}
    return {
        f"{kind}ID": reference.id,
        f"{kind}Name": reference.name,
        **({} if reference.env else {"File": target}),
        **given(Env=reference.env, Pinned=reference.pinned),
    }

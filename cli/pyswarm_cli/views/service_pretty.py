"""`service inspect --pretty`: what docker prints, and what is ours beside it. Pure: the JSON of `inspected.service`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from pyswarm_cli.views.modes import modes_in_words
from pyswarm_cli.views.shapes import Json

_NANO = 1_000_000_000


def pretty(service: Json, networks: Mapping[str, str] = MappingProxyType({})) -> str:
    """One service, with its last line's end. `networks`: names by id."""
    return "\n".join(_lines(service, networks)) + "\n"


def _lines(service: Json, networks: Mapping[str, str]) -> Iterator[str]:
    spec, task = service["Spec"], service["Spec"]["TaskTemplate"]
    yield f"\nID:\t\t{service['ID']}"
    yield f"Name:\t\t{spec['Name']}"
    yield from _pairs("Labels:", spec["Labels"])
    yield from _mode(spec["Mode"])
    yield from modes_in_words(service)
    yield from _section("UpdateStatus:", _update_status(service.get("UpdateStatus", {})))
    yield from _section(
        "DependsOn:", [f" {item['Service']}:\t{item['Condition']}" for item in spec.get("DependsOn", [])]
    )
    if "Priority" in spec:
        yield f"Priority:\t{spec['Priority']}"
    yield from _section("RestartPolicy:", _restart(task.get("RestartPolicy", {})))
    yield from _section("Placement:", _placement(task["Placement"]))
    yield from _section("UpdateConfig:", _update(spec.get("UpdateConfig", {}), "Update"))
    yield from _section("RollbackConfig:", _update(spec.get("RollbackConfig", {}), "Rollback"))
    yield from _section("ContainerSpec:", _container(task["ContainerSpec"]))
    yield from _section("Mounts:", _mounts(task["ContainerSpec"].get("Mounts", [])))
    yield from _files(task["ContainerSpec"])
    yield from _section("Log Driver:", _log_driver(task.get("LogDriver", {})))
    yield from _section("Resources:", _resources(task["Resources"]))
    names = [networks.get(item["Target"], item["Target"]) for item in task["Networks"]]
    yield from _section("Networks:", [f" {name}" for name in names])
    yield f"Endpoint Mode:\t{spec['EndpointSpec']['Mode']}"
    if "SessionAffinity" in spec["EndpointSpec"]:
        yield f"Session Affinity:\t{spec['EndpointSpec']['SessionAffinity']}"
    yield from _section("Ports:", _ports(service["Endpoint"]["Ports"]))
    if "AllowFrom" in spec["EndpointSpec"]:
        yield f"Allow From:\t{', '.join(spec['EndpointSpec']['AllowFrom'])}"
    yield from _section("Healthcheck:", _health(task["ContainerSpec"].get("Healthcheck", {})))


def _section(title: str, lines: Iterator[str] | list[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield title
        yield from found


def _pairs(title: str, values: Mapping[str, Any]) -> Iterator[str]:
    yield from _section(title, [f" {key}={value}" for key, value in sorted(values.items())])


def _mode(mode: Json) -> Iterator[str]:
    for name, settings in mode.items():
        words = name.replace("Job", " Job")
        yield f"Service Mode:\t{words}"
        yield from _values(settings or {}, {key: key for key in settings or {}})


def _values(found: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[str]:
    for key, title in names.items():
        if key in found:
            yield f" {title}:\t{_shown(found[key])}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(_shown(item) for item in value)
    if isinstance(value, dict):
        return ",".join(f"{key}={_shown(item)}" for key, item in value.items())
    return str(value)


def _update_status(status: Json) -> Iterator[str]:
    names = {"State": "State", "StartedAt": "Started", "CompletedAt": "Completed", "Message": "Message"}
    yield from _values({key: value for key, value in status.items() if value}, names)


def _placement(placement: Json) -> Iterator[str]:
    spread = [item["Spread"]["SpreadDescriptor"] for item in placement.get("Preferences", [])]
    shown = {**placement, "Preferences": [f"spread={item}" for item in spread]} if spread else placement
    names = {
        "Constraints": "Constraints",
        "Preferences": "Preferences",
        "MaxReplicas": "Max Replicas Per Node",
        "Tolerations": "Tolerations",
        "Affinities": "Affinities",
        "Strategy": "Strategy",
    }
    yield from _values(shown, names)


def _restart(policy: Json) -> Iterator[str]:
    """What was asked for: docker shows nothing of the default."""
    policy = {key: value for key, value in policy.items() if value and (key, value) != ("Condition", "any")}
    durations = ("Delay", "MaxDelay", "Window")
    shown = {key: _duration(value) if key in durations else value for key, value in policy.items()}
    names = {"Condition": "Condition", "Delay": "Delay", "MaxDelay": "Max delay", "MaxAttempts": "Max attempts"}
    yield from _values(shown, {**names, "Window": "Window"})


def _update(config: Json, kind: str) -> Iterator[str]:
    if not config:
        return
    yield f" Parallelism:\t{config['Parallelism']}"
    if config["Delay"]:
        yield f" Delay:\t\t{_duration(config['Delay'])}"
    yield f" On failure:\t{config['FailureAction']}"
    if config.get("Monitor"):
        yield f" Monitoring Period: {_duration(config['Monitor'])}"
    yield f" Max failure ratio: {config['MaxFailureRatio']:g}"
    yield f" {kind} order:      {config['Order']}"


def _duration(nanos: int) -> str:
    """As Go writes it: 1h2m3s, 500ms."""
    seconds = nanos / _NANO
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    head = f"{hours}h" if hours else ""
    head += f"{minutes}m" if hours or minutes else ""
    return f"{head}{rest:g}s"


_OF_THE_CONTAINER = {
    "Image": "Image",
    "Command": "Command",
    "Args": "Args",
    "Env": "Env",
    "Hostname": "Hostname",
    "Dir": "Dir",
    "User": "User",
    "Groups": "Groups",
    "Init": "Init",
    "TTY": "TTY",
    "ReadOnly": "Read-only root",
    "Isolation": "Isolation",
    "Privileged": "Privileged",
    "CapabilityAdd": "Capabilities added",
    "CapabilityDrop": "Capabilities dropped",
    "OomScoreAdj": "OOM score adjustment",
    "PidMode": "PID mode",
    "IpcMode": "IPC mode",
    "Hosts": "Hosts",
    "Sysctls": "Sysctls",
    "StopSignal": "Stop signal",
}


def _container(spec: Json) -> Iterator[str]:
    yield from _values(spec, _OF_THE_CONTAINER)
    if "StopGracePeriod" in spec:
        yield f" Stop grace period:\t{_duration(spec['StopGracePeriod'])}"
    dns = {"Nameservers": "DNS", "Search": "DNS search", "Options": "DNS options"}
    yield from _values(spec.get("DNSConfig", {}), dns)
    if "ShmSize" in spec:
        yield f" Shared memory:\t{_size(spec['ShmSize'])}"
    for device in spec.get("Devices", []):
        yield f" Device:\t{device['PathOnHost']}:{device['PathInContainer']}:{device['CgroupPermissions']}"
    for limit in spec.get("Ulimits", []):
        yield f" Ulimit:\t{limit['Name']}={limit['Soft']}:{limit['Hard']}"
    rights = spec.get("Privileges", {})
    for name, title in (("Seccomp", "Seccomp"), ("AppArmor", "AppArmor")):
        if name in rights:
            profile = rights[name].get("Profile", "") if name == "AppArmor" else ""
            yield f" {title}:\t{profile or rights[name]['Mode']}"
    if "NoNewPrivileges" in rights:
        yield " No new privileges:\ttrue"


def _mounts(mounts: list[Json]) -> Iterator[str]:
    for mount in mounts:
        yield f" Target:\t{mount['Target']}"
        for key in ("Source", "ReadOnly", "Type", "BindOptions", "VolumeOptions", "TmpfsOptions"):
            if key in mount:
                yield f"  {key}:\t{_shown(mount[key])}"


def _files(spec: Json) -> Iterator[str]:
    for kind in ("Config", "Secret"):
        lines = []
        for item in spec.get(f"{kind}s", []):
            target = item["File"]["Name"] if "File" in item else f"${item.get('Env', '')}"
            lines += [f" Target:\t{target}", f"  Source:\t{item[f'{kind}Name']}"]
        yield from _section(f"{kind}s:", lines)


def _log_driver(driver: Json) -> Iterator[str]:
    yield from _values(driver, {"Name": "Name"})
    yield from _section(" LogOpts:", [f"  {key}:\t{value}" for key, value in sorted(driver.get("Options", {}).items())])


def _resources(resources: Json) -> Iterator[str]:
    for title in ("Reservations", "Limits"):
        amounts = resources.get(title, {})
        lines = []
        if "NanoCPUs" in amounts:
            lines.append(f"  CPU:\t\t{amounts['NanoCPUs'] / _NANO:g}")
        if "MemoryBytes" in amounts:
            lines.append(f"  Memory:\t{_size(amounts['MemoryBytes'])}")
        if "Pids" in amounts:
            lines.append(f"  PIDs:\t\t{amounts['Pids']}")
        for item in amounts.get("GenericResources", []):
            (resource,) = item.values()
            lines.append(f"  {resource['Kind']}:\t{resource['Value']}")
        yield from _section(f" {title}:", lines)
    if "SwapBytes" in resources:
        swap = resources["SwapBytes"]
        yield f" Memory and swap:\t{'unlimited' if swap == -1 else _size(swap)}"
    if "MemorySwappiness" in resources:
        yield f" Memory swappiness:\t{resources['MemorySwappiness']}"


def _size(count: int) -> str:
    """As docker: binary units, four digits at most."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.4g}{units[0]}"


def _ports(ports: list[Json]) -> Iterator[str]:
    for port in ports:
        yield f" PublishedPort = {port.get('PublishedPort', 0)}"
        yield f"  Protocol = {port['Protocol']}"
        yield f"  TargetPort = {port['TargetPort']}"
        yield f"  PublishMode = {port['PublishMode']}"
        for key in ("HostIP", "Policy", "ProxyProtocol"):
            if key in port:
                yield f"  {key} = {port[key]}"


def _health(check: Json) -> Iterator[str]:
    for key in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        if key in check:
            yield f" {key} = {_duration(check[key])}"
    if "Retries" in check:
        yield f" Retries = {check['Retries']}"
    if "Test" in check:
        yield f" Test = {' '.join(check['Test'])}"

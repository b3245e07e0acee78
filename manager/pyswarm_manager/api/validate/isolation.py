"""What a container may be given of its node, and how it is kept apart; docker's words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.model import ContainerSpec, DeviceMapping, LogDriver, Ulimit
from pyswarm_manager.api.validate.fields import Violation, check_count, check_text, each, shown

MAX_ITEMS = 1024
MAX_PROFILE_BYTES = 256 * 1024
ULIMITS = frozenset(
    (
        *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss"),
        *("rtprio", "rttime", "sigpending", "stack"),
    )
)
HOST = "host"
_UNCONFINED = "unconfined"
_CAPABILITY = re.compile(r"(?:CAP_)?[A-Z_]+|ALL", re.IGNORECASE)
_SYSCTL = re.compile(r"[a-z0-9_]+(?:[./][a-zA-Z0-9_-]+)+")
_APPARMOR = re.compile(r"[A-Za-z0-9_./-]{1,255}")
_DRIVER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_./:-]{0,254}")
_PERMISSIONS = re.compile("[rwm]{0,3}")


def check_isolation(spec: ContainerSpec) -> Iterator[Violation]:
    """Everything that is neither the process nor its files."""
    yield from check_rights(spec)
    yield from _check_profiles(spec)
    yield from _check_ulimits(spec.ulimits)
    yield from check_count(spec.devices, MAX_ITEMS, "devices", "devices")
    for index, device in enumerate(spec.devices[:MAX_ITEMS]):
        yield from each("devices", index, _check_device(device))
    if spec.log_driver is not None:
        yield from _check_log_driver(spec.log_driver)
    yield from _check_namespaces(spec)
    yield from check_count(spec.groups, MAX_ITEMS, "groups", "groups")
    for index, group in enumerate(spec.groups[:MAX_ITEMS]):
        yield from check_text(group, f"groups[{index}]", "group")
        if not group or ":" in group:
            yield f"groups[{index}]", f"invalid group {shown(group)}: write its name or number"


def _check_namespaces(spec: ContainerSpec) -> Iterator[Violation]:
    if spec.isolation not in ("", "default"):
        yield "isolation", f"invalid isolation: {shown(spec.isolation)}: linux only supports 'default'"
    if spec.pid_mode not in ("", HOST):
        yield "pid_mode", f"--pid: invalid PID mode {shown(spec.pid_mode)}: use host, or leave it out"
    if spec.ipc_mode not in ("", HOST):
        yield "ipc_mode", f"invalid IPC mode: {shown(spec.ipc_mode)}: use host, or leave it out"
    if spec.shm_size_bytes < 0:
        yield "shm_size_bytes", "SHM size can not be less than 0"
    if not -1000 <= spec.oom_score_adj <= 1000:
        yield "oom_score_adj", f"Invalid value {spec.oom_score_adj}, range for oom score adj is [-1000, 1000]"


def _check_profiles(spec: ContainerSpec) -> Iterator[Violation]:
    profile = spec.apparmor_profile
    if profile and _APPARMOR.fullmatch(profile) is None:
        yield "apparmor_profile", f"invalid AppArmor profile {shown(profile)}"
    text = spec.seccomp_profile
    if text in ("", _UNCONFINED):
        return
    if len(text) > MAX_PROFILE_BYTES:
        yield "seccomp_profile", f"the seccomp profile is too large: {MAX_PROFILE_BYTES} bytes at most"
        return
    try:
        decode_json(text.encode(), dict)
    except (Malformed, UnicodeEncodeError):
        yield "seccomp_profile", "the seccomp profile is not a JSON object"


def _check_ulimits(limits: tuple[Ulimit, ...]) -> Iterator[Violation]:
    yield from check_count(limits, MAX_ITEMS, "ulimits", "ulimits")
    for index, limit in enumerate(limits[:MAX_ITEMS]):
        path, hard = f"ulimits[{index}]", limit.hard
        if limit.name not in ULIMITS:
            yield f"{path}.name", f"invalid ulimit type: {shown(limit.name)}"
        if min(limit.soft, hard) < -1:
            yield path, "a ulimit is -1 (unlimited), zero or more"
        elif hard != -1 and (limit.soft == -1 or limit.soft > hard):
            yield (
                f"{path}.soft",
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {hard}",
            )


def _check_device(device: DeviceMapping) -> Iterator[Violation]:
    for path, value in (("host_path", device.host_path), ("container_path", device.container_path)):
        yield from check_text(value, path, "device")
        if not value.startswith("/") and (value or path == "host_path"):
            yield path, f"{shown(value)} is not an absolute path"
    if _PERMISSIONS.fullmatch(device.permissions) is None:
        yield "permissions", f"invalid device mode: {shown(device.permissions)}"


def _check_log_driver(driver: LogDriver) -> Iterator[Violation]:
    if driver.name and _DRIVER.fullmatch(driver.name) is None:
        yield "log_driver.name", f"invalid logging driver {shown(driver.name)}"
    yield from check_count(tuple(driver.options), MAX_ITEMS, "log_driver.options", "logging options")
    for key, value in driver.options.items():
        if not key:
            yield "log_driver.options", "a logging option needs a name"
        yield from check_text(key, "log_driver.options", "logging option")
        yield from check_text(value, "log_driver.options", f"logging option {shown(key)}")


def check_rights(spec: ContainerSpec) -> Iterator[Violation]:
    """Capabilities and kernel parameters."""
    for path, names in (("cap_add", spec.cap_add), ("cap_drop", spec.cap_drop)):
        for index, name in enumerate(names):
            if _CAPABILITY.fullmatch(name) is None:
                yield f"{path}[{index}]", f"invalid capability: {shown(name)}"
    for key, value in spec.sysctls.items():
        if _SYSCTL.fullmatch(key) is None:
            yield "sysctls", f"sysctl {shown(key)} is not of the form net.core.somaxconn"
        yield from check_text(value, "sysctls", f"sysctl {shown(key)}")

"""What a container of a service may be told."""

from __future__ import annotations

import ipaddress
import posixpath
import re
import signal
from collections.abc import Iterator

from pyswarm_common.model import ContainerSpec, HealthCheck, Mount, MountType
from pyswarm_manager.api.validate.fields import (
    Violation,
    check_count,
    check_duration,
    check_labels,
    check_text,
    each,
    shown,
    under,
)

MAX_ITEMS = 4096
MAX_ARGUMENT_LENGTH = 128 * 1024  # one argument or variable, as Linux bounds it
_MIN_HEALTH_PERIOD_S = 0.001

# The grammar of distribution's references: [host[:port]/]path[:tag][@digest]. Only whether it is one matters here; what
# it means is decided on the node that fetches it.
_ALNUM = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_HOST}(?:\.{_HOST})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_IMAGE = re.compile(
    rf"(?:{_DOMAIN}/)?{_ALNUM}(?:/{_ALNUM})*(?::[\w][\w.-]{{0,127}})?(?:@[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{{32,}})?",
    re.ASCII,
)
_MAX_IMAGE_LENGTH = 255 + 1 + 128 + 1 + 7 + 128  # name, tag, digest
_HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-)){0,7}")
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_CAPABILITY = re.compile(r"(?:CAP_)?[A-Z_]+|ALL", re.IGNORECASE)
_SYSCTL = re.compile(r"[a-z0-9_]+(?:[./][a-zA-Z0-9_-]+)+")


def check_container(spec: ContainerSpec) -> Iterator[Violation]:
    yield from _check_image(spec.image)
    yield from _check_arguments(spec)
    yield from _check_env(spec.env)
    yield from _check_identity(spec)
    yield from _check_mounts(spec.mounts)
    yield from check_labels(spec.labels)
    yield from check_duration(spec.stop_grace_period_s, "stop_grace_period_s", "ContainerSpec: stop-grace-period")
    yield from _check_signal(spec.stop_signal)
    if spec.healthcheck is not None:
        yield from under("healthcheck", _check_health(spec.healthcheck))
    yield from _check_names(spec)
    yield from _check_privileges(spec)


def _check_image(image: str) -> Iterator[Violation]:
    if not image:
        yield "image", "ContainerSpec: image reference must be provided"
    elif len(image) > _MAX_IMAGE_LENGTH or _IMAGE.fullmatch(image) is None:
        yield "image", f"ContainerSpec: {shown(image)} is not a valid repository/tag"


def _check_arguments(spec: ContainerSpec) -> Iterator[Violation]:
    for path, items in (("command", spec.command), ("args", spec.args)):
        yield from check_count(items, MAX_ITEMS, path, "arguments")
        for index, item in enumerate(items):
            if "\x00" in item:
                yield f"{path}[{index}]", "ContainerSpec: an argument must not hold a zero byte"
            elif len(item) > MAX_ARGUMENT_LENGTH:
                yield f"{path}[{index}]", f"ContainerSpec: an argument is longer than {MAX_ARGUMENT_LENGTH} characters"


def _check_env(env: tuple[str, ...]) -> Iterator[Violation]:
    yield from check_count(env, MAX_ITEMS, "env", "environment variables")
    for index, item in enumerate(env):
        if not item.partition("=")[0]:
            yield f"env[{index}]", f"invalid environment variable: {shown(item)} must have the form NAME=value"
        elif "\x00" in item or len(item) > MAX_ARGUMENT_LENGTH:
            yield f"env[{index}]", f"invalid environment variable: {shown(item)} is too long or holds a zero byte"


def _check_identity(spec: ContainerSpec) -> Iterator[Violation]:
    if spec.hostname and (len(spec.hostname) > 63 or _HOSTNAME.fullmatch(spec.hostname) is None):
        yield "hostname", f"invalid hostname format: {shown(spec.hostname)}"
    yield from check_text(spec.user, "user", "ContainerSpec: user")
    yield from check_text(spec.dir, "dir", "ContainerSpec: working directory")
    if spec.dir and not spec.dir.startswith("/"):
        yield "dir", f"the working directory {shown(spec.dir)} is invalid, it needs to be an absolute path"


def _check_mounts(mounts: tuple[Mount, ...]) -> Iterator[Violation]:
    yield from check_count(mounts, MAX_ITEMS, "mounts", "mounts")
    targets: set[str] = set()
    for index, mount in enumerate(mounts):
        yield from each("mounts", index, _check_mount(mount))
        target = posixpath.normpath(mount.target) if mount.target else ""
        if target and target in targets:
            yield f"mounts[{index}].target", f"ContainerSpec: duplicate mount point: {mount.target}"
        targets.add(target)


def _check_mount(mount: Mount) -> Iterator[Violation]:
    yield from check_text(mount.target, "target", "mount target")
    yield from check_text(mount.source, "source", "mount source")
    if not mount.target:
        yield "target", "invalid mount config: field Target must not be empty"
    elif not mount.target.startswith("/"):
        yield "target", f"invalid mount path: {shown(mount.target)} mount path must be absolute"
    elif posixpath.normpath(mount.target).lstrip("/") == "":
        yield "target", "invalid specification: destination can't be '/'"
    if mount.type is MountType.BIND and not mount.source.startswith("/"):
        yield "source", f"invalid mount path: {shown(mount.source)} mount path must be absolute"
    if mount.type is MountType.VOLUME and mount.source and _VOLUME.fullmatch(mount.source) is None:
        yield "source", f"invalid volume name {shown(mount.source)}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    if mount.type is MountType.TMPFS and mount.source:
        yield "source", "invalid mount config for type tmpfs: field Source must not be specified"
    if mount.tmpfs_size_bytes < 0 or (mount.tmpfs_size_bytes and mount.type is not MountType.TMPFS):
        yield "tmpfs_size_bytes", "invalid mount config: the size must be positive, and only tmpfs has one"


def _check_signal(name: str) -> Iterator[Violation]:
    if not name:
        return
    if name.isascii() and name.isdigit():
        valid = len(name) <= 2 and 1 <= int(name) < signal.NSIG
    else:
        upper = name.upper()
        # RTMIN+3 and the like are docker's names of real-time signals.
        known = upper if upper.startswith("SIG") else f"SIG{upper}"
        valid = known in signal.Signals.__members__ or re.fullmatch(r"SIGRTM(IN|AX)([+-]\d{1,2})?", known) is not None
    if not valid:
        yield "stop_signal", f"invalid signal: {shown(name)}"


def _check_health(check: HealthCheck) -> Iterator[Violation]:
    if check.test and check.test[0] not in {"NONE", "CMD", "CMD-SHELL"}:
        yield "test", f"unknown type {shown(check.test[0])} in healthcheck: use NONE, CMD or CMD-SHELL"
    elif check.test and check.test[0] == "CMD-SHELL" and len(check.test) != 2:
        yield "test", "a healthcheck of type CMD-SHELL has exactly one command"
    elif check.test == ("CMD",):
        yield "test", "a healthcheck of type CMD needs a command"
    for index, item in enumerate(check.test):
        yield from check_text(item, f"test[{index}]", "healthcheck")
    for path, name, value in (
        ("interval_s", "Interval", check.interval_s),
        ("timeout_s", "Timeout", check.timeout_s),
        ("start_period_s", "StartPeriod", check.start_period_s),
    ):
        yield from check_duration(value, path, f"{name} in Healthcheck")
        if 0 < value < _MIN_HEALTH_PERIOD_S:
            yield path, f"{name} in Healthcheck cannot be less than 1ms"
    if check.retries < 0:
        yield "retries", "Retries in Healthcheck cannot be negative"


def _check_names(spec: ContainerSpec) -> Iterator[Violation]:
    """Name servers and lines of /etc/hosts."""
    for index, server in enumerate(spec.dns):
        if not _is_address(server):
            yield f"dns[{index}]", f"{shown(server)} is not an ip address"
    for index, entry in enumerate(spec.hosts):
        name, _, address = entry.partition(":")
        if _HOSTNAME.fullmatch(name) is None or not _is_address(address):
            yield f"hosts[{index}]", f"bad format for add-host: {shown(entry)} must have the form name:address"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_privileges(spec: ContainerSpec) -> Iterator[Violation]:
    for path, names in (("cap_add", spec.cap_add), ("cap_drop", spec.cap_drop)):
        for index, name in enumerate(names):
            if _CAPABILITY.fullmatch(name) is None:
                yield f"{path}[{index}]", f"invalid capability: {shown(name)}"
    for key, value in spec.sysctls.items():
        if _SYSCTL.fullmatch(key) is None:
            yield "sysctls", f"sysctl {shown(key)} is not of the form net.core.somaxconn"
        yield from check_text(value, "sysctls", f"sysctl {shown(key)}")

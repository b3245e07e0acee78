"""What flags say of a service's containers: ulimits, devices, security options, probes, credentials. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pyswarm_cli.parse.pairs import boolean
from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import DeviceMapping, Ulimit
from pyswarm_common.probe_targets import http_target, tcp_target

MAX_PROFILE_BYTES = 256 * 1024
UNCONFINED = "unconfined"
_LIMIT = re.compile(r"-1|[0-9]{1,18}")
_WHOLE = re.compile(r"-?[0-9]{1,9}")
ULIMITS = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss"),
    *("rtprio", "rttime", "sigpending", "stack"),
)


def ulimit(text: str) -> Ulimit:
    """`nofile=1024:2048`, `nproc=64`; -1 is unlimited."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidArgument(f"invalid ulimit argument: {text}")
    if name.lower() not in ULIMITS:
        raise InvalidArgument(f"invalid ulimit type: {name}")
    numbers = value.split(":")
    if len(numbers) > 2:
        raise InvalidArgument(f"too many limit value arguments - {value}, can only have up to two, `soft[:hard]`")
    if not all(_LIMIT.fullmatch(number) for number in numbers):
        raise InvalidArgument(f"invalid ulimit argument: {text}: limits are whole numbers, -1 is unlimited")
    soft, hard = int(numbers[0]), int(numbers[-1])
    if hard != -1 and (soft == -1 or soft > hard):
        raise InvalidArgument(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return Ulimit(name=name.lower(), soft=soft, hard=hard)


def device(text: str) -> DeviceMapping:
    """`/dev/snd`, `/dev/sda:/dev/xvdc`, `/dev/zero:/dev/mine:r`, `/dev/zero:r`."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise InvalidArgument(f"invalid device specification: {text}")
    host, inside, permissions = parts[0], "", "rwm"
    rest = parts[1:]
    if rest and _is_mode(rest[-1]):
        permissions = rest.pop()
    if rest:
        inside = rest.pop(0)
    if rest:
        raise InvalidArgument(f"bad mode specified: {rest[0]}")
    for path in (host, inside or host):
        if not path.startswith("/"):
            raise InvalidArgument(f"{path} is not an absolute path")
    return DeviceMapping(host_path=host, container_path=inside or host, permissions=permissions)


def _is_mode(text: str) -> bool:
    return 0 < len(text) <= 3 and set(text) <= set("rwm") and len(set(text)) == len(text)


@dataclass(frozen=True, slots=True)
class SecurityOption:
    """`name` is a field of the specification."""

    name: str
    value: str | bool


def security_option(text: str) -> SecurityOption:
    """`no-new-privileges`, `seccomp=FILE` (the profile's text is read later), `apparmor=PROFILE`."""
    name, separator, value = text.partition("=")
    if not separator:
        name, separator, value = text.partition(":")
    if name == "no-new-privileges":
        return SecurityOption("no_new_privileges", boolean(value, name))
    if name == "seccomp" and value == "builtin":
        return SecurityOption("seccomp_profile", "")
    if name in ("seccomp", "apparmor") and separator:
        return SecurityOption(f"{name}_profile", value)
    if name == "label":
        raise InvalidArgument(f'invalid --security-opt: "{text}": SELinux labels are not supported')
    raise InvalidArgument(f'invalid --security-opt: "{text}": use no-new-privileges, seccomp=FILE or apparmor=PROFILE')


def seccomp_profile(path: str, data: bytes) -> str:
    """The text of a profile's file; the agents know what it means."""
    if len(data) > MAX_PROFILE_BYTES:
        raise InvalidArgument(f"opening seccomp profile ({path}) failed: larger than {MAX_PROFILE_BYTES} bytes")
    try:
        decode_json(data, dict)
        return data.decode()
    except (Malformed, UnicodeDecodeError) as error:
        raise InvalidArgument(f"compacting json for seccomp profile ({path}) failed: {error}") from None


def health_http(url: str) -> str:
    """A URL that can be probed."""
    http_target(url)
    return url


def health_tcp(text: str) -> str:
    """A port that can be probed."""
    tcp_target(text)
    return text


def oom_score(text: str) -> int:
    """-1000 to 1000."""
    if not _WHOLE.fullmatch(text) or not -1000 <= int(text) <= 1000:
        raise InvalidArgument(f"Invalid value {text}, range for oom score adj is [-1000, 1000]")
    return int(text)


def swappiness(text: str) -> int:
    """0 to 100, or -1 for the node's own."""
    if not _WHOLE.fullmatch(text) or not -1 <= int(text) <= 100:
        raise InvalidArgument(f"Invalid value: {text}, valid memory swappiness range is 0-100")
    return int(text)


def isolation(text: str) -> str:
    """Linux has one."""
    if text not in ("", "default"):
        raise InvalidArgument(f"invalid isolation: \"{text}\": linux only supports 'default'")
    return text


def credential_spec(text: str) -> str:
    """Refused, with a reason: nothing on Linux can use one."""
    if not text.startswith(("config://", "file://", "registry://")):
        raise InvalidArgument(
            'invalid credential spec: value must be prefixed with "config://", "file://", or "registry://"'
        )
    raise InvalidArgument("credential specs are of Windows containers: this cluster's nodes run Linux")


def namespace_mode(text: str) -> str:
    """Of --pid and --ipc: "host", or "private" for its own."""
    if text not in ("", "private", "host"):
        raise InvalidArgument(f'"{text}" is not supported: use host or private')
    return "host" if text == "host" else ""

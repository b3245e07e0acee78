"""A user's own seccomp profile, as docker writes them: which rules hold here. Pure.

Docker's format is OCI's and more: the architectures come as a map, and a rule may hold only for some architectures,
capabilities or kernels. Everything in the text is distrusted: it is bounded, typed, and refused with a sentence. The
OCI runtime compiles the result.
"""

from __future__ import annotations

import platform
import re
from typing import Any

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import InvalidArgument
from pyswarm_runtime.oci.seccomp import ARCHITECTURES

MAX_PROFILE_BYTES = 256 * 1024
_NAME = re.compile(r"[a-z0-9_]{1,64}")
_CONSTANT = re.compile(r"SCMP_[A-Z0-9_]{1,40}")
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
_ACTIONS = frozenset(
    [
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_LOG",
    ]
)
_MAX_ERRNO = 4095


class _Architecture(msgspec.Struct, rename="camel"):
    architecture: str = ""
    sub_architectures: list[str] | None = None


class _Argument(msgspec.Struct, rename="camel"):
    index: int = 0
    value: int = 0
    value_two: int = 0
    op: str = ""


class _When(msgspec.Struct, rename="camel"):
    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str = ""


class _Rule(msgspec.Struct, rename="camel"):
    action: str = ""
    name: str = ""
    names: list[str] | None = None
    errno_ret: int | None = None
    args: list[_Argument] | None = None
    includes: _When | None = None
    excludes: _When | None = None


class _Profile(msgspec.Struct, rename="camel"):
    default_action: str = ""
    default_errno_ret: int | None = None
    architectures: list[str] | None = None
    arch_map: list[_Architecture] | None = None
    syscalls: list[_Rule] | None = None


def check_profile(text: str) -> None:
    """Refuses what is no profile."""
    profile = _decoded(text)
    _known("default action", profile.default_action, _ACTIONS)
    if profile.architectures and profile.arch_map:
        raise InvalidArgument("seccomp profile: both 'architectures' and 'archMap' are given: use either one")
    _errno(profile.default_errno_ret)
    for entry in profile.arch_map or ():
        _constants([entry.architecture, *(entry.sub_architectures or ())])
    _constants(profile.architectures or [])
    for rule in profile.syscalls or ():
        _check_rule(rule)


def _check_rule(rule: _Rule) -> None:
    _known("action", rule.action, _ACTIONS)
    _errno(rule.errno_ret)
    if rule.name and rule.names:
        raise InvalidArgument("seccomp profile: both 'name' and 'names' are given: use either one")
    for name in _names(rule):
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"seccomp profile: {name[:64]!r} is no system call's name")
    for argument in rule.args or ():
        _constants([argument.op])
        if not 0 <= argument.index < 6 or not 0 <= argument.value < 2**64 or not 0 <= argument.value_two < 2**64:
            raise InvalidArgument("seccomp profile: an argument's index is 0 to 5, its values fit into 64 bits")
    for when in (rule.includes, rule.excludes):
        if when is not None and when.min_kernel:
            _kernel(when.min_kernel)


def custom_profile(text: str, architecture: str, capabilities: frozenset[str]) -> msgspec.Raw:
    """The `linux.seccomp` object in JSON, for this machine and a container with these capabilities."""
    profile = _decoded(text)
    release = platform.release()
    found: dict[str, Any] = {
        "defaultAction": profile.default_action,
        "architectures": _architectures(profile, architecture),
        "syscalls": [
            _rule(rule)
            for rule in profile.syscalls or ()
            if _names(rule) and _holds(rule, architecture, capabilities, release)
        ],
    }
    if profile.default_errno_ret is not None:
        found["defaultErrnoRet"] = profile.default_errno_ret
    return msgspec.Raw(msgspec.json.encode(found))


def _decoded(text: str) -> _Profile:
    data = text.encode()
    if len(data) > MAX_PROFILE_BYTES:
        raise InvalidArgument(f"the seccomp profile is too large: {MAX_PROFILE_BYTES} bytes at most")
    try:
        return decode_json(data, _Profile)
    except Malformed as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error


def _names(rule: _Rule) -> list[str]:
    return [rule.name] if rule.name else rule.names or []


def _known(what: str, value: str, known: frozenset[str]) -> None:
    if value not in known:
        raise InvalidArgument(f"seccomp profile: invalid {what} {value[:64]!r}: use one of {', '.join(sorted(known))}")


def _errno(value: int | None) -> None:
    if value is not None and not 0 <= value <= _MAX_ERRNO:
        raise InvalidArgument(f"seccomp profile: {value} is no error number (0 to {_MAX_ERRNO})")


def _constants(values: list[str]) -> None:
    for value in values:
        if not _CONSTANT.fullmatch(value):
            raise InvalidArgument(f"seccomp profile: {value[:64]!r} is no constant of libseccomp (SCMP_…)")


def _architectures(profile: _Profile, architecture: str) -> list[str]:
    if profile.architectures:
        return profile.architectures
    own = ARCHITECTURES.get(architecture, ())
    for entry in profile.arch_map or ():
        if own and entry.architecture == own[0]:
            return [entry.architecture, *(entry.sub_architectures or ())]
    return list(own[:1])


def _holds(rule: _Rule, architecture: str, capabilities: frozenset[str], release: str) -> bool:
    wanted, unwanted = rule.includes or _When(), rule.excludes or _When()
    go_name = _GO_NAMES.get(architecture, architecture)
    return (
        (not wanted.arches or go_name in wanted.arches)
        and go_name not in (unwanted.arches or ())
        and capabilities.issuperset(wanted.caps or ())
        and capabilities.isdisjoint(unwanted.caps or ())
        and (not wanted.min_kernel or _kernel(release) >= _kernel(wanted.min_kernel))
        and (not unwanted.min_kernel or _kernel(release) < _kernel(unwanted.min_kernel))
    )


def _kernel(text: str) -> tuple[int, int]:
    match = re.match(r"(\d{1,4})\.(\d{1,4})", text)
    if match is None:
        raise InvalidArgument(f"seccomp profile: {text[:64]!r} is no kernel version such as 4.8")
    return int(match.group(1)), int(match.group(2))


def _rule(rule: _Rule) -> dict[str, Any]:
    found: dict[str, Any] = {"names": _names(rule), "action": rule.action}
    if rule.errno_ret is not None:
        found["errnoRet"] = rule.errno_ret
    if rule.args:
        found["args"] = [
            {"index": item.index, "value": item.value, "valueTwo": item.value_two, "op": item.op} for item in rule.args
        ]
    return found

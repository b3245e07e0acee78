"""What a container of a service may be told."""

from __future__ import annotations

import ipaddress
import re
import signal
from collections.abc import Iterator

from pyswarm_common.model import ContainerSpec
from pyswarm_manager.api.validate.fields import (
    Violation,
    check_count,
    check_duration,
    check_labels,
    check_text,
    shown,
    under,
)
from pyswarm_manager.api.validate.files import check_references
from pyswarm_manager.api.validate.health import check_health
from pyswarm_manager.api.validate.isolation import check_isolation
from pyswarm_manager.api.validate.mounts import check_mounts
from pyswarm_manager.api.validate.placeholders import check_placeholders, has_placeholders

MAX_ITEMS = 4096
MAX_ARGUMENT_LENGTH = 128 * 1024  # one argument or variable, as Linux bounds it
MAX_AUTH_BYTES = 64 * 1024
MAX_DNS_ITEMS = 64

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
_DNS_WORD = re.compile(r"[!-~]{1,255}")
_HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-)){0,7}")


def check_container(spec: ContainerSpec) -> Iterator[Violation]:
    yield from _check_image(spec.image)
    yield from _check_arguments(spec)
    yield from _check_env(spec.env)
    yield from _check_identity(spec)
    yield from check_mounts(spec.mounts)
    yield from check_placeholders(spec)
    yield from check_references(spec)
    yield from check_labels(spec.labels)
    yield from check_duration(spec.stop_grace_period_s, "stop_grace_period_s", "ContainerSpec: stop-grace-period")
    yield from _check_signal(spec.stop_signal)
    if spec.healthcheck is not None:
        yield from under("healthcheck", check_health(spec.healthcheck))
    yield from _check_names(spec)
    yield from check_isolation(spec)
    if len(spec.registry_auth) > MAX_AUTH_BYTES:
        yield "registry_auth", f"the registry's credentials are too large: {MAX_AUTH_BYTES} bytes at most"


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
    yield from _check_hostname(spec.hostname)
    yield from check_text(spec.user, "user", "ContainerSpec: user")
    yield from check_text(spec.dir, "dir", "ContainerSpec: working directory")
    if spec.dir and not spec.dir.startswith("/"):
        yield "dir", f"the working directory {shown(spec.dir)} is invalid, it needs to be an absolute path"


def _check_hostname(name: str) -> Iterator[Violation]:
    if has_placeholders(name):
        yield from check_text(name, "hostname", "ContainerSpec: hostname")
    elif name and (len(name) > 63 or _HOSTNAME.fullmatch(name) is None):
        yield "hostname", f"invalid hostname format: {shown(name)}"


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


def _check_names(spec: ContainerSpec) -> Iterator[Violation]:
    """Name servers and lines of /etc/hosts."""
    for index, server in enumerate(spec.dns):
        if not _is_address(server):
            yield f"dns[{index}]", f"{shown(server)} is not an ip address"
    for path, words in (("dns_options", spec.dns_options), ("dns_search", spec.dns_search)):
        yield from check_count(words, MAX_DNS_ITEMS, path, "words")
        for index, word in enumerate(words[:MAX_DNS_ITEMS]):
            if _DNS_WORD.fullmatch(word) is None:
                what = "domain" if path == "dns_search" else "DNS option"
                yield f"{path}[{index}]", f"{shown(word)} is not a valid {what}"
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

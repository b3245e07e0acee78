"""Image references with docker's defaulting rules: `busybox` is `docker.io/library/busybox:latest`. Pure.

References are stored in their full form and shown in the familiar one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pyswarm_common.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
MAX_NAME_LENGTH = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SHORT_ID = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True)
class Reference:
    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        return f"{self.domain}/{self.path}{self._suffix()}"

    def familiar(self) -> str:
        """As docker shows it: without the default domain and its `library/`."""
        if self.domain != DEFAULT_DOMAIN:
            return str(self)
        return self.path.removeprefix("library/") + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return tag + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """The full reference that `text` means, tag `latest` added where neither tag nor digest is given."""
    rest, _, digest = text.partition("@")
    if digest and not _DIGEST.fullmatch(digest):
        raise InvalidArgument(f"invalid reference format: '{text}' has a digest that is not sha256:<64 hex digits>")
    name, tag = _split_tag(rest)
    domain, path = _split_domain(name)
    _check(text, domain, path, tag)
    reference = Reference(domain, path, tag, digest or None)
    return replace(reference, tag=DEFAULT_TAG) if tag is None and not digest else reference


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def is_short_id(text: str) -> bool:
    """Could be the beginning of an image id."""
    return _SHORT_ID.fullmatch(text) is not None


def _split_tag(text: str) -> tuple[str, str | None]:
    """A colon after the last slash begins the tag; one before it belongs to the registry's port."""
    head, slash, last = text.rpartition("/")
    name, colon, tag = last.partition(":")
    return head + slash + name, tag if colon else None


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    domain, path = (first, rest) if is_domain else (DEFAULT_DOMAIN, name)
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path


def _check(text: str, domain: str, path: str, tag: str | None) -> None:
    if path != path.lower():
        raise InvalidArgument(f"invalid reference format: repository name '{path}' must be lowercase")
    well_formed = _DOMAIN.fullmatch(domain) and _PATH.fullmatch(path) and (tag is None or _TAG.fullmatch(tag))
    if not well_formed or len(domain) + 1 + len(path) > MAX_NAME_LENGTH:
        raise InvalidArgument(f"invalid reference format: '{text}' is not [registry/]name[:tag][@digest]")

"""Where docker keeps what opens a registry: which registry an image is from, and what its config.json says of it. Pure.

Docker's own file is read as docker writes it: credentials in `auths`, a helper for all registries or for one. What a
helper answers is read here too. No message holds a credential.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.secrecy import shown_without

MAX_BYTES = 1024 * 1024
HUB = "https://index.docker.io/v1/"
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TOKEN_USER = "<token>"  # noqa: S105  what helpers say in a name's place


class _Auth(msgspec.Struct, frozen=True):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    def __repr__(self) -> str:
        return shown_without(self, "auth", "password", "identitytoken", "registrytoken")


class _Config(msgspec.Struct, frozen=True, rename="camel"):
    auths: dict[str, _Auth] | None = None
    cred_helpers: dict[str, str] | None = None
    creds_store: str = ""


class _HelperAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    username: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return shown_without(self, "secret")


@dataclass(frozen=True, slots=True)
class Helper:
    """A program to ask: `docker-credential-NAME get`."""

    program: str


def registry_of(image: str) -> str:
    """The key of an image's registry in docker's file."""
    first, slash, _ = image.partition("/")
    is_domain = bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    return HUB if not is_domain or first in ("docker.io", "index.docker.io") else first


def stored_auth(config: bytes, registry: str) -> bytes | Helper:
    """Docker's AuthConfig in JSON, or whom to ask for it. Empty if there is none."""
    try:
        found = decode_json(config, _Config)
    except Malformed:
        raise InvalidArgument(
            "docker's config.json is not what docker writes: log in again with docker login"
        ) from None
    helper = (found.cred_helpers or {}).get(registry, found.creds_store)
    if helper:
        if not _HELPER.fullmatch(helper):
            raise InvalidArgument(f"docker's config.json names a credential helper that is no program: {helper[:64]!r}")
        return Helper(f"docker-credential-{helper}")
    for name, auth in (found.auths or {}).items():
        if _host(name) == _host(registry):
            return _encoded(auth, registry)
    return b""


def helper_auth(answer: bytes, registry: str) -> bytes:
    """What a helper said, as an AuthConfig."""
    try:
        said = decode_json(answer, _HelperAnswer)
    except Malformed:
        raise InvalidArgument(f"the credential helper's answer for {registry} is not what docker expects") from None
    if not said.secret:
        return b""
    if said.username == _TOKEN_USER:
        return _encoded(_Auth(identitytoken=said.secret), registry)
    return _encoded(_Auth(username=said.username, password=said.secret), registry)


def _host(key: str) -> str:
    """Older files hold URLs."""
    return key if key == HUB else key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _encoded(auth: _Auth, registry: str) -> bytes:
    username, password = auth.username, auth.password
    if auth.auth and not username:
        try:
            username, _, password = base64.b64decode(auth.auth, validate=True).decode().partition(":")
        except ValueError:  # no base64, or no text
            raise InvalidArgument(f"docker's config.json is damaged at {registry}: log in again") from None
    values = {
        "username": username,
        "password": password,
        "identitytoken": auth.identitytoken,
        "registrytoken": auth.registrytoken,
    }
    given = {name: value for name, value in values.items() if value}
    return msgspec.json.encode({**given, "serveraddress": registry}) if given else b""

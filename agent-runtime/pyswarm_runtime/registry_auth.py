"""How a registry wants to be convinced: credentials as docker writes them, challenges as registries do. Pure.

Both come from outside and are bounded. A credential is only ever sent to the registry it was given for, or to the
token service that this registry names over the same kind of connection.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.secrecy import shown_without

MAX_CREDENTIALS = 64 * 1024
MAX_CHALLENGE = 4096
_PARAMETER = re.compile(r'\s*([a-zA-Z]+)="([^"]*)"\s*(?:,|$)')


class Credentials(msgspec.Struct, frozen=True):
    """Docker's AuthConfig."""

    username: str = ""
    password: str = ""
    auth: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    def __repr__(self) -> str:
        return shown_without(self, "password", "auth", "identitytoken", "registrytoken")

    @property
    def basic(self) -> str:
        """The value of a Basic header; empty without a name."""
        if self.username:
            return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return self.auth


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a WWW-Authenticate header asks for."""

    scheme: str  # basic or bearer
    realm: str = ""
    service: str = ""


def read_credentials(data: bytes) -> Credentials:
    """Of a service's specification; empty bytes are none."""
    if not data:
        return Credentials()
    if len(data) > MAX_CREDENTIALS:
        raise InvalidArgument("the registry's credentials are too large")
    try:
        return decode_json(data, Credentials)
    except Malformed:
        # Not with the decoder's own words, which may quote what must not be seen.
        raise InvalidArgument("the registry's credentials are not docker's JSON: log in again") from None


def read_challenge(header: str, *, is_secure: bool) -> Challenge | None:
    """None for one that we have no answer to. A secure registry cannot send us to an insecure token service."""
    if len(header) > MAX_CHALLENGE:
        return None
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() == "basic":
        return Challenge("basic")
    if scheme.lower() != "bearer":
        return None
    values = {name.lower(): value for name, value in _PARAMETER.findall(rest)}
    try:
        realm = urlsplit(values.get("realm", ""))
        host = realm.hostname
    except ValueError:
        return None
    allowed = ("https",) if is_secure else ("https", "http")
    if realm.scheme not in allowed or not host:
        return None
    return Challenge("bearer", values["realm"], values.get("service", ""))

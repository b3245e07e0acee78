"""Reads images from a registry (the distribution protocol): manifests, and blobs from an offset.

Decides how to reach it and how to answer its challenge; what is fetched is the puller's to say. HTTPS with a verified
certificate, always, but for registries on this very machine's loopback, which may be plain (docker's rule). Answers
are bounded; what goes wrong is one sentence, which never holds a credential.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import Forbidden, NotFound, PyswarmError, Unavailable
from pyswarm_runtime.image_model import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from pyswarm_runtime.reference import DEFAULT_DOMAIN, Reference
from pyswarm_runtime.registry_auth import Challenge, Credentials, read_challenge

MAX_MANIFEST = 4 * 1024 * 1024
MAX_TOKEN = 1024 * 1024
CHUNK = 256 * 1024
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_HUB = "registry-1.docker.io"
_ACCEPT = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST))


@dataclass(frozen=True, slots=True)
class Found:
    """A manifest, or a list of them."""

    data: bytes
    media_type: str


class RegistryClient:
    """One repository, as one caller sees it. Use it as a context manager."""

    def __init__(self, reference: Reference, credentials: Credentials) -> None:
        self._domain = reference.domain
        self._path = reference.path
        self._credentials = credentials
        self._authorization = f"Bearer {credentials.registrytoken}" if credentials.registrytoken else ""
        host = _DOCKER_HUB if reference.domain == DEFAULT_DOMAIN else reference.domain
        self._is_local = _is_loopback(host)
        self._bases = [f"https://{host}/v2/", *([f"http://{host}/v2/"] if self._is_local else [])]
        timeout = aiohttp.ClientTimeout(
            sock_connect=CONNECT_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
        )
        self._session = aiohttp.ClientSession(timeout=timeout, trust_env=True)

    async def __aenter__(self) -> RegistryClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def manifest(self, tag_or_digest: str) -> Found:
        """NotFound where there is none."""
        async with self._get(f"manifests/{tag_or_digest}", {"Accept": _ACCEPT}) as response:
            data = await _bounded(response, MAX_MANIFEST, "manifest")
            return Found(data, response.content_type)

    async def blob(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """From there to its end."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._get(f"blobs/{digest}", headers) as response:
            if offset and response.status != 206:
                raise Unavailable(f"registry {self._domain} cannot go on in the middle of a blob")
            try:
                async for chunk in response.content.iter_chunked(CHUNK):
                    yield chunk
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise _unreachable(self._domain, error) from None

    @asynccontextmanager
    async def _get(self, what: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The first base that answers is the registry's. A challenge is answered once."""
        for attempt in (1, 2):
            response = await self._reach(what, headers)
            if response.status != 401 or attempt == 2:
                break
            await self._answer(response)
        try:
            self._check(response, what)
            yield response
        finally:
            response.release()

    async def _reach(self, what: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        while True:
            base = self._bases[0]
            try:
                return await self._session.get(
                    f"{base}{self._path}/{what}",
                    headers={**headers, **({"Authorization": self._authorization} if self._authorization else {})},
                    ssl=not self._is_local,
                )
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                if len(self._bases) == 1:
                    raise _unreachable(self._domain, error) from None
                self._bases.pop(0)

    async def _answer(self, response: aiohttp.ClientResponse) -> None:
        is_secure = response.url.scheme == "https"
        headers = response.headers.getall("WWW-Authenticate", [])
        response.release()
        found = (read_challenge(header, is_secure=is_secure) for header in headers)
        challenge = next((item for item in found if item is not None), None)
        if challenge is None:
            raise Forbidden(f"registry {self._domain} asks for a kind of login that is not known here")
        if challenge.scheme == "bearer":
            self._authorization = f"Bearer {await self._token(challenge)}"
        elif self._credentials.basic:
            self._authorization = f"Basic {self._credentials.basic}"

    async def _token(self, challenge: Challenge) -> str:
        scope = f"repository:{self._path}:pull"
        wanted = {"service": challenge.service, "scope": scope}
        credentials = self._credentials
        try:
            if credentials.identitytoken:
                form = {**wanted, "grant_type": "refresh_token", "refresh_token": credentials.identitytoken}
                form = {**form, "client_id": "pyswarm"}
                # A redirection would carry the token on to whomever it names.
                request = self._session.post(challenge.realm, data=form, allow_redirects=False)
            else:
                headers = {"Authorization": f"Basic {credentials.basic}"} if credentials.basic else {}
                request = self._session.get(challenge.realm, params=wanted, headers=headers)
            async with request as response:
                if response.status != 200:
                    raise Forbidden(f"unauthorized: registry {self._domain} does not accept these credentials")
                return _token_in(await _bounded(response, MAX_TOKEN, "token"), self._domain)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(self._domain, error) from None

    def _check(self, response: aiohttp.ClientResponse, what: str) -> None:
        status = response.status
        if status in (200, 206):
            return
        name = f"{self._domain}/{self._path}"
        if status in (401, 403):
            raise Forbidden(
                f"pull access denied for {name}, repository does not exist or may require 'docker login': denied"
            )
        if status == 404:
            raise NotFound(f"{what.replace('/', ' ', 1)} of {name} is not known to the registry")
        raise Unavailable(f"registry {self._domain} answers with HTTP status {status}")


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


async def _bounded(response: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK):
        data += chunk
        if len(data) > limit:
            raise Unavailable(f"the registry's {what} is larger than {limit} bytes")
    return bytes(data)


def _token_in(data: bytes, domain: str) -> str:
    try:
        answer: dict[str, Any] = decode_json(data, dict[str, Any])
    except Malformed:
        answer = {}
    token = answer.get("token") or answer.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise Unavailable(f"registry {domain}: its token service gives no token")
    return token


def _unreachable(domain: str, error: Exception) -> PyswarmError:
    """Why in a few words: aiohttp's own sentences name the objects it worked with."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError | aiohttp.ClientSSLError):
        reason = "its certificate is not trusted here"
    elif isinstance(error, TimeoutError):
        reason = "no answer in time"
    else:
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        reason = (getattr(cause, "strerror", None) or type(cause).__name__).lower()
    return Unavailable(f"registry {domain} cannot be reached: {reason}")

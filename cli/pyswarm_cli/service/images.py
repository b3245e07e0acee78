"""The image of a service before it is sent: pinned to what its registry has under that name now, with credentials.

The daemon asks the registry; docker's own files and helpers say what opens it. A registry that does not answer is no
error: the service runs with the name as it is, and docker's warning says what that means.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from pyswarm_cli.connection import Connection, call
from pyswarm_cli.failures import FromDaemon
from pyswarm_cli.parse.docker_config import MAX_BYTES, Helper, helper_auth, registry_of, stored_auth
from pyswarm_common.errors import FailedPrecondition, InvalidArgument
from pyswarm_common.model import Platform, ServiceSpec

_HELPER_TIMEOUT_S = 30.0
_RESOLVE_TIMEOUT_S = 30.0
_WARNING = """\
image {0} could not be accessed on a registry to record
its digest. Each node will access {0} independently,
possibly leading to different nodes running different
versions of the image.
"""


class ServiceImages:
    """Of one command. Asks once for each image, however often the command has to try."""

    def __init__(self, connection: Connection, options: Mapping[str, Any]) -> None:
        self._connection = connection
        self._may_resolve = not options["no_resolve_image"]
        self._sends_auth = bool(options["with_registry_auth"])
        self._auth: dict[str, bytes] = {}
        self._resolved: dict[str, tuple[str, tuple[Platform, ...]]] = {}

    def prepared(self, spec: ServiceSpec, *, is_new_image: bool) -> ServiceSpec:
        """The specification as it is sent."""
        task, container = spec.task, spec.task.container
        auth = self._auth_for(container.image) if self._sends_auth else b""
        if is_new_image:
            image, platforms = self._pinned(container.image, auth)
            container = replace(container, image=image)
            task = replace(task, placement=replace(task.placement, platforms=platforms))
        return replace(spec, task=replace(task, container=replace(container, registry_auth=auth)))

    def _auth_for(self, image: str) -> bytes:
        registry = registry_of(image)
        if registry not in self._auth:
            self._auth[registry] = registry_auth(registry, os.environ)
        return self._auth[registry]

    def _pinned(self, image: str, auth: bytes) -> tuple[str, tuple[Platform, ...]]:
        if "@" in image or not self._may_resolve:
            return image, ()
        if image not in self._resolved:
            self._resolved[image] = self._ask(image, auth)
        return self._resolved[image]

    def _ask(self, image: str, auth: bytes) -> tuple[str, tuple[Platform, ...]]:
        from pyswarm.v1 import node_pb2  # noqa: PLC0415 - only who asks needs it

        request = node_pb2.ResolveImageRequest(reference=image, registry_auth=auth)
        try:
            answer = call(self._connection.images.ResolveImage, request, _RESOLVE_TIMEOUT_S)
        except FailedPrecondition:  # a remote manager cannot ask for us
            answer = node_pb2.ResolveImageResponse()
        except FromDaemon as error:
            if isinstance(error.refusal, InvalidArgument):
                return image, ()  # no name of an image at all, as the manager will say
            answer = node_pb2.ResolveImageResponse()
        if not answer.reference and not answer.is_in_cluster:
            click.echo(_WARNING.format(image), err=True)
        platforms = tuple(Platform(architecture=item.architecture, os=item.os) for item in answer.platforms)
        return answer.reference or image, platforms


def registry_auth(registry: str, environment: Mapping[str, str]) -> bytes:
    """From docker's config.json, or the helper that it names. Empty where there is nothing."""
    directory = environment.get("DOCKER_CONFIG") or str(Path(environment.get("HOME", "/")) / ".docker")
    try:
        with (Path(directory) / "config.json").open("rb") as file:
            config = file.read(MAX_BYTES)
    except FileNotFoundError:
        return b""
    found = stored_auth(config, registry)
    return _asked(found, registry) if isinstance(found, Helper) else found


def _asked(helper: Helper, registry: str) -> bytes:
    """The registry goes to it on standard input, and its secret comes back on standard output: never in arguments."""
    try:
        done = subprocess.run(
            [helper.program, "get"],
            input=registry.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_HELPER_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        raise FailedPrecondition(
            f"the credential helper {helper.program} cannot be asked: install it, or log in without it"
        ) from None
    if done.returncode != 0:  # as docker: it has none for this registry
        return b""
    return helper_auth(done.stdout[:MAX_BYTES], registry)

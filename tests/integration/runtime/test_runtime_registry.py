"""Images from a real registry (Debian's docker-registry, with a password): what a name means, and pulling it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from pyswarm_common.errors import Forbidden, NotFound, Unavailable
from pyswarm_runtime import ContainerConfig, ImageManifest, Runtime
from pyswarm_runtime.image_model import OCI_INDEX, OCI_MANIFEST
from pyswarm_runtime.pulling import pull, resolve

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("docker-registry", "skopeo"))), reason="needs docker-registry and skopeo"
)
USER, PASSWORD = "reader", "Geheim-4711"
AUTH = json.dumps({"username": USER, "password": PASSWORD}).encode()
# "Geheim-4711" by bcrypt, as `htpasswd -B` writes it.
HASH = "$2b$05$abcdefghijklmnopqrstuuu4CurlKlZflZEXceLNt5g6P7qaCelxK"
CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: test, path: {passwords}}}}}
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = _free_port()
    directory = tmp_path_factory.mktemp("registry")
    passwords = directory / "htpasswd"
    passwords.write_text(f"{USER}:{HASH}\n")
    config = directory / "registry.yml"
    config.write_text(CONFIG.format(root=directory / "registry", port=port, passwords=passwords))
    with subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            while True:
                assert server.poll() is None
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except ConnectionRefusedError:
                    continue
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.fixture
async def pushed(registry: str, runtime: Runtime, tmp_path: Path) -> str:
    """The name of an image that is in the registry and nowhere else."""
    name = f"{registry}/team/app:1"
    archive = tmp_path / "image.tar"
    await runtime.images.save(["busybox"], archive)
    source = f"docker-archive:{archive}"
    command = ["skopeo", "copy", "--dest-tls-verify=false", "--dest-creds", f"{USER}:{PASSWORD}", source]
    done = await asyncio.to_thread(
        subprocess.run, [*command, f"docker://{name}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return name


async def test_a_name_means_a_digest_and_is_pulled_by_it(pushed: str, runtime: Runtime) -> None:
    resolved = await resolve(pushed, AUTH)
    name, at, digest = resolved.reference.partition("@")
    assert name == pushed
    await runtime.images.remove("busybox", force=True)
    said: list[str] = []
    image = await pull(resolved.reference, AUTH, runtime.images, said.append)
    assert said
    assert at
    assert image.digest == digest
    container_id = await runtime.create(
        ContainerConfig(image=resolved.reference, command=("sh", "-c", "echo pulled"), host_network=True)
    )
    await runtime.start(container_id)
    await runtime.wait(container_id)
    assert [record.data async for record in runtime.logs(container_id)] == [b"pulled\n"]


async def test_who_may_not_and_what_is_not_there(pushed: str, runtime: Runtime) -> None:
    wrong = json.dumps({"username": USER, "password": "Falsch-0815"}).encode()
    for auth in (b"", wrong):
        with pytest.raises(Forbidden, match="pull access denied") as refused:
            await resolve(pushed, auth)
        assert "0815" not in str(refused.value)
    with pytest.raises(NotFound):
        await resolve(f"{pushed}.2", AUTH)
    await pull(pushed, AUTH, runtime.images, lambda _: None)


async def test_a_registry_that_is_not_there() -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await resolve(f"127.0.0.1:{_free_port()}/app:1")


async def test_a_login_by_token_and_a_list_of_platforms(runtime: Runtime) -> None:
    """As the great registries do it: a challenge, a token for it, and a list of manifests."""
    stored = await runtime.images.manifest("busybox")
    digests = (stored.config_digest, *(layer.digest for layer in stored.layers))
    blobs = {digest: b"".join([part async for part in runtime.images.read_blob(digest)]) for digest in digests}
    async with _token_registry(stored, blobs) as (domain, seen):
        resolved = await resolve(f"{domain}/app", AUTH)
        assert resolved.platforms == (("amd64", "linux"), ("arm64", "linux"), ("mips", "plan9"))
        await runtime.images.remove("busybox", force=True)
        image = await pull(resolved.reference, AUTH, runtime.images, lambda _: None)
        assert image.digest == "sha256:" + hashlib.sha256(stored.manifest_bytes).hexdigest()
    basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert seen["token"] == {("test", "repository:app:pull", basic)}
    assert seen["authorization"] == {"", "Bearer t0ken"}


@asynccontextmanager
async def _token_registry(
    stored: ImageManifest, blobs: dict[str, bytes]
) -> AsyncIterator[tuple[str, dict[str, set[object]]]]:
    seen: dict[str, set[object]] = {"token": set(), "authorization": set()}
    manifest = stored.manifest_bytes
    digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
    entries = [
        {
            "digest": digest,
            "size": len(manifest),
            "mediaType": OCI_MANIFEST,
            "platform": {"architecture": name, "os": system},
        }
        for name, system in (("arm64", "linux"), ("amd64", "linux"), ("mips", "plan9"), ("unknown", "unknown"))
    ]
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    documents = {digest: (manifest, OCI_MANIFEST)}
    documents |= dict.fromkeys(("latest", "sha256:" + hashlib.sha256(index).hexdigest()), (index, OCI_INDEX))

    async def token(request: web.Request) -> web.Response:
        seen["token"].add((request.query["service"], request.query["scope"], request.headers.get("Authorization", "")))
        return web.json_response({"token": "t0ken"})

    async def serve(request: web.Request) -> web.Response:
        authorization = request.headers.get("Authorization", "")
        seen["authorization"].add(authorization)
        if authorization != "Bearer t0ken":
            challenge = f'Bearer realm="http://{request.host}/token",service="test",scope="repository:app:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        name = request.match_info["name"]
        if name in documents:
            data, kind = documents[name]
            return web.Response(body=data, content_type=kind)
        return web.Response(body=blobs[name])

    app = web.Application()
    app.add_routes([web.get("/token", token), web.get("/v2/app/{kind}/{name}", serve)])
    server = web.AppRunner(app)
    await server.setup()
    port = _free_port()
    await web.TCPSite(server, "127.0.0.1", port).start()
    try:
        yield f"127.0.0.1:{port}", seen
    finally:
        await server.cleanup()

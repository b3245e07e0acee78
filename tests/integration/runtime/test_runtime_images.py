"""Images: import, load of docker's and OCI's archives, save, names, removal, and the way from one node to another."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pyswarm_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PyswarmError
from pyswarm_runtime import ContainerConfig, ImageStore, Limits, Runtime
from pyswarm_runtime.image_model import digest_of


def tar_of(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return buffer.getvalue()


BASE = tar_of({"etc/a": b"base", "etc/gone": b"x", "dir/old": b"old"})
UPPER = tar_of({"etc/a": b"upper", "etc/.wh.gone": b"", "dir/.wh..wh..opq": b"", "dir/new": b"new"})


def config_of(*layers: bytes, **fields: Any) -> bytes:
    document = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "created": "2020-01-02T03:04:05.123456789Z",
        "config": {"Cmd": ["cat"], "Env": ["A=b"], "ExposedPorts": {"80/tcp": {}}, "Labels": None},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        **fields,
    }
    return json.dumps(document).encode()


def docker_archive(config: bytes, layers: list[bytes], tags: list[str] | None) -> bytes:
    """As docker wrote it up to version 24, links for layers that repeat included."""
    name = digest_of(config)[7:] + ".json"
    files: dict[str, bytes] = {name: config}
    links: dict[str, str] = {}
    paths = []
    for number, layer in enumerate(layers):
        paths.append(f"{number}/layer.tar")
        earlier = layers.index(layer)
        if earlier < number:
            links[paths[-1]] = f"../{earlier}/layer.tar"
        else:
            files[paths[-1]] = layer
        files[f"{number}/VERSION"] = b"1.0"
    files["manifest.json"] = json.dumps([{"Config": name, "RepoTags": tags, "Layers": paths}]).encode()
    return tar_of(files, links)


def oci_archive(config: bytes, layers: list[bytes], name: str | None, platform: dict[str, str] | None = None) -> bytes:
    blobs = [config, *layers]

    def descriptor(data: bytes, media_type: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers],
        }
    ).encode()
    inner = descriptor(manifest, "application/vnd.oci.image.manifest.v1+json")
    if platform:
        inner["platform"] = platform
    index = json.dumps({"schemaVersion": 2, "manifests": [inner]}).encode()
    outer = descriptor(index, "application/vnd.oci.image.index.v1+json")
    if name:
        outer["annotations"] = {"io.containerd.image.name": name}
    files = {f"blobs/sha256/{digest_of(blob)[7:]}": blob for blob in (*blobs, manifest, index)}
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [outer]}).encode()
    return tar_of(files)


async def in_pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for offset in range(0, len(data), size):
        yield data[offset : offset + size]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    with ThreadPoolExecutor(4) as pool:
        limits = Limits(archive_bytes=10**7, layer_bytes=10**7, layer_entries=1000, metadata_bytes=10**5)
        store = ImageStore(tmp_path / "store", pool, limits, lambda: ())
        await store.open()
        yield store


def left(tmp_path: Path) -> list[str]:
    """Everything in the store but its database."""
    paths = (tmp_path / "store").rglob("*")
    return sorted(path.name for path in paths if path.is_file() and path.name != "images.json")


async def test_load_of_a_docker_archive(store: ImageStore) -> None:
    data = docker_archive(config_of(BASE, UPPER, BASE), [BASE, UPPER, BASE], ["app:v1", "reg.example/app:v2"])
    (image,) = await store.load(in_pieces(gzip.compress(data)))
    assert image.references == ("app:v1", "reg.example/app:v2")
    assert image.id == digest_of(config_of(BASE, UPPER, BASE))
    assert (image.config.cmd, image.config.exposed_ports, image.os) == (("cat",), ("80/tcp",), "linux")
    assert image.created_at == pytest.approx(1577934245.123456)
    layer = store.layers.path(digest_of(UPPER))
    assert (layer / "etc/a").read_text() == "upper"
    assert (layer / "etc/gone").lstat().st_rdev == 0


@pytest.mark.parametrize("name", ["docker.io/library/app:v1", None])
async def test_load_of_an_oci_layout(store: ImageStore, name: str | None) -> None:
    data = oci_archive(config_of(BASE), [gzip.compress(BASE)], name)
    (image,) = await store.load(in_pieces(data))
    assert image.references == (("app:v1",) if name else ())
    assert (await store.inspect(image.id)).digest == image.digest
    assert (await store.inspect(image.id[7:19])).id == image.id


async def test_an_oci_layout_for_another_machine(store: ImageStore) -> None:
    data = oci_archive(config_of(BASE), [BASE], "app", {"os": "linux", "architecture": "riscv64"})
    with pytest.raises(InvalidArgument, match="no image for linux"):
        await store.load(in_pieces(data))


async def test_save_and_load_again(store: ImageStore, tmp_path: Path) -> None:
    await store.load(in_pieces(docker_archive(config_of(BASE, UPPER), [BASE, UPPER], ["app:v1"])))
    before = await store.inspect("app:v1")
    await store.save(["app:v1"], tmp_path / "out.tar")
    await store.remove("app:v1")
    assert left(tmp_path) == []
    (after,) = await store.load(tmp_path / "out.tar")
    assert after == before


async def test_import_with_changes(store: ImageStore) -> None:
    image = await store.import_(in_pieces(BASE), "base", cmd=("a",), changes=("ENV X=y", "WORKDIR /etc"))
    assert (image.config.cmd, image.config.env, image.config.working_dir) == (("a",), ("X=y",), "/etc")
    assert image.diff_ids == (digest_of(BASE),)
    assert image.references == ("base:latest",)


async def test_names(store: ImageStore, tmp_path: Path) -> None:
    await store.import_(in_pieces(BASE), "base")
    await store.tag("base", "other:v1")
    assert (await store.inspect("base")).references == ("base:latest", "other:v1")
    assert await store.exists("other:v1")
    assert not await store.exists("other")
    (untagged,) = await store.remove("base")
    assert untagged.untagged == "base:latest"
    removed = await store.remove("other:v1")
    assert [bool(entry.deleted) for entry in removed] == [False, True]
    assert await store.list() == []
    assert left(tmp_path) == []
    with pytest.raises(NotFound, match="No such image: other:v1"):
        await store.remove("other:v1")


async def test_removal_by_id(store: ImageStore) -> None:
    image = await store.import_(in_pieces(BASE), "base")
    await store.tag("base", "two")
    with pytest.raises(FailedPrecondition, match="must be forced"):
        await store.remove(image.id)
    assert len(await store.remove(image.id[7:20], force=True)) == 3


async def test_a_shared_layer_stays(store: ImageStore) -> None:
    await store.load(in_pieces(docker_archive(config_of(BASE), [BASE], ["one"])))
    await store.load(in_pieces(docker_archive(config_of(BASE, UPPER), [BASE, UPPER], ["two"])))
    await store.remove("two")
    assert (store.layers.path(digest_of(BASE)) / "etc/a").exists()
    assert not store.layers.path(digest_of(UPPER)).exists()


async def test_a_name_moves_to_the_new_image(store: ImageStore) -> None:
    old = await store.import_(in_pieces(BASE), "app")
    new = await store.import_(in_pieces(UPPER), "app")
    assert (await store.inspect("app")).id == new.id
    assert (await store.inspect(old.id)).references == ()


async def test_what_was_stored_is_there_after_a_restart(store: ImageStore, tmp_path: Path) -> None:
    image = await store.import_(in_pieces(BASE), "base")
    with ThreadPoolExecutor(1) as pool:
        again = ImageStore(tmp_path / "store", pool, Limits(), lambda: ())
        await again.open()
        assert await again.list() == [image]


async def test_from_node_to_node(store: ImageStore, tmp_path: Path) -> None:
    await store.load(in_pieces(docker_archive(config_of(BASE, UPPER), [BASE, UPPER], ["app:v1"])))
    with ThreadPoolExecutor(4) as pool:
        other = ImageStore(tmp_path / "other", pool, Limits(), lambda: ())
        await other.open()
        manifest = await store.manifest("app:v1")
        with pytest.raises(FailedPrecondition, match="lacks 3 blobs"):
            await other.commit(manifest.reference, manifest.manifest_bytes)
        wanted = [(manifest.config_digest, manifest.config_size)]
        wanted += [(layer.digest, layer.size) for layer in manifest.layers]
        for digest, size in wanted:
            assert not await other.has_blob(digest)
            # Several at once: one writes, the others wait for it.
            writers = [other.write_blob(digest, size, store.read_blob(digest, chunk=777)) for _ in range(3)]
            await asyncio.gather(*writers)
            assert await other.has_blob(digest)
        image = await other.commit(manifest.reference, manifest.manifest_bytes)
        assert image == await store.inspect("app:v1")
        assert list((tmp_path / "other/tmp").iterdir()) == []


async def test_read_blob_from_an_offset(store: ImageStore) -> None:
    image = await store.import_(in_pieces(BASE), "base")
    data = b"".join([chunk async for chunk in store.read_blob(image.diff_ids[0], offset=600, chunk=100)])
    assert data == BASE[600:]
    with pytest.raises(NotFound, match="No such blob"):
        await anext(aiter(store.read_blob("sha256:" + "0" * 64)))


@pytest.mark.parametrize(
    ("digest", "size", "data"),
    [
        (digest_of(b"abc"), 3, b"abd"),
        (digest_of(b"abc"), 2, b"abc"),
        (digest_of(b"abc"), 4, b"abc"),
        ("sha256:../../etc/passwd", 3, b"abc"),
        ("md5:abc", 3, b"abc"),
        (digest_of(b"abc"), -1, b""),
        (digest_of(b"abc"), 10**12, b""),
    ],
)
async def test_a_blob_that_is_not_what_it_should_be(
    store: ImageStore, tmp_path: Path, digest: str, size: int, data: bytes
) -> None:
    with pytest.raises(PyswarmError):
        await store.write_blob(digest, size, in_pieces(data))
    assert left(tmp_path) == []


async def test_the_second_writer_goes_on_where_the_first_fails(store: ImageStore) -> None:
    data = b"x" * 5000

    async def failing() -> AsyncIterator[bytes]:
        yield data[:1000]
        raise ConnectionError("the peer is gone")

    results = await asyncio.gather(
        store.write_blob(digest_of(data), len(data), failing()),
        store.write_blob(digest_of(data), len(data), in_pieces(data)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [ConnectionError, type(None)]
    assert await store.has_blob(digest_of(data))


HOSTILE: dict[str, bytes] = {
    "not a tar file": b"hello" * 500,
    "nothing in it": tar_of({}),
    "no manifest": tar_of({"a": b"b"}),
    "manifest is not JSON": tar_of({"manifest.json": b"{"}),
    "manifest of another shape": tar_of({"manifest.json": b'{"a": 1}'}),
    "no images": tar_of({"manifest.json": b"[]"}),
    "nested JSON": tar_of({"manifest.json": b"[" * 100_000}),
    "missing config": tar_of({"manifest.json": b'[{"Config": "x", "Layers": []}]'}),
    "path outside": tar_of({"manifest.json": b'[{"Config": "../../../../etc/passwd", "Layers": []}]'}),
    "links in a circle": tar_of({"manifest.json": b'[{"Config": "a", "Layers": []}]'}, {"a": "b", "b": "a"}),
    "other layer": docker_archive(config_of(UPPER), [BASE], ["app"]),
    "fewer layers": docker_archive(config_of(BASE, UPPER), [BASE], ["app"]),
    "other machine": docker_archive(config_of(BASE, architecture="s390x"), [BASE], ["app"]),
    "other system": docker_archive(config_of(BASE, os="windows"), [BASE], ["app"]),
    "wrong tag": docker_archive(config_of(BASE), [BASE], ["App:!!"]),
    "hostile layer": docker_archive(config_of(tar_of({"../x": b""})), [tar_of({"../x": b""})], ["app"]),
    "bad diff id": docker_archive(config_of(BASE, rootfs={"diff_ids": ["sha256:../x"]}), [BASE], ["app"]),
    "too much": docker_archive(config_of(BASE), [bytes(11_000_000)], ["app"]),
    "oci blob with other content": oci_archive(config_of(BASE), [BASE], "app").replace(b'"Cmd"', b'"cmd"'),
    "huge metadata": tar_of({"manifest.json": b" " * 200_000 + b"[]"}),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_hostile_archives_are_refused_and_leave_nothing(store: ImageStore, tmp_path: Path, what: str) -> None:
    with pytest.raises(PyswarmError) as refusal:
        await store.load(in_pieces(HOSTILE[what], 100_000))
    assert "\n" not in str(refusal.value)
    assert await store.list() == []
    assert left(tmp_path) == []


@pytest.mark.parametrize("data", [b"", b"no tar" * 999, tar_of({"../x": b""}), gzip.compress(bytes(20_000_000))])
async def test_hostile_root_file_systems(store: ImageStore, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(PyswarmError):
        await store.import_(in_pieces(data, 100_000), "app")
    assert left(tmp_path) == []


async def test_an_ambiguous_id(store: ImageStore) -> None:
    for number in range(20):
        await store.import_(in_pieces(tar_of({"a": str(number).encode()})), f"app:{number}")
    images = await store.list()
    assert len(images) == 20
    first = [image.id[7:11] for image in images]
    for prefix in set(first):
        if first.count(prefix) > 1:
            with pytest.raises(AlreadyExists, match="fits"):
                await store.inspect(prefix)


async def test_layers_show_through_in_a_container(runtime: Runtime, rootfs_tar: Path) -> None:
    base = rootfs_tar.read_bytes()
    data = docker_archive(config_of(base, BASE, UPPER), [base, BASE, UPPER], ["three"])
    await runtime.images.load(in_pieces(data, 10**6))
    command = ("sh", "-c", "cat /etc/a; echo; ls /etc /dir")
    container_id = await runtime.create(ContainerConfig(image="three", command=command, host_network=True))
    await runtime.start(container_id)
    assert (await runtime.wait(container_id)).exit_code == 0
    output = b"".join([record.data async for record in runtime.logs(container_id)]).decode().split()
    assert output[0] == "upper"
    assert "gone" not in output
    assert output[output.index("/dir:") + 1] == "new"
    assert "old" not in output


async def test_an_image_of_many_layers(runtime: Runtime, rootfs_tar: Path) -> None:
    """More names than one page of mount options holds."""
    layers = [rootfs_tar.read_bytes(), *(tar_of({f"n/{number}": b"x"}) for number in range(50))]
    await runtime.images.load(in_pieces(docker_archive(config_of(*layers), layers, ["many"]), 10**6))
    config = ContainerConfig(image="many", command=("sh", "-c", "set -- /n/*; exit $#"), host_network=True)
    container_id = await runtime.create(config)
    await runtime.start(container_id)
    assert (await runtime.wait(container_id)).exit_code == 50

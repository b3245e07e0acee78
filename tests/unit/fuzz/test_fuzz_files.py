"""Every file that a daemon reads at its start: whatever its bytes, it is read, or refused in a sentence."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm_common.errors import PyswarmError
from pyswarm_common.model import Cluster, Node
from pyswarm_lab.records import HostRecord
from pyswarm_lab.records import load as load_record
from pyswarm_manager.bootstrap import Bootstrap
from pyswarm_manager.config import ManagerConfig, ManagerPaths
from pyswarm_manager.standing import Standing
from pyswarm_node.paths import NodeRecord, Options
from pyswarm_overlay.records import Records
from pyswarm_runtime.image_model import parse_config, parse_manifest
from pyswarm_runtime.images import ImageStore
from pyswarm_runtime.logs import LogParser
from pyswarm_runtime.types import Limits


@dataclass(frozen=True)
class File:
    """Where it lies below the directory, what is in it when it is whole, and who reads it."""

    name: str
    valid: bytes
    read: Callable[[Path], object]


def read_images(root: Path) -> object:
    with ThreadPoolExecutor(1) as pool:
        return asyncio.run(ImageStore(root, pool, Limits(), list).open())


def parse_logs(root: Path) -> object:
    parser = LogParser()
    return [*parser.feed((root / "log").read_bytes()), *parser.finish()]


DIGEST = "sha256:" + "a" * 64
FILES = [
    File(
        "node.json",
        msgspec.json.encode(NodeRecord(node_id="n", cluster_id="c", address="a", data_path_address="a")),
        lambda root: NodeRecord.load(Options(state_dir=root)),
    ),
    File(
        "manager/manager.json",
        msgspec.json.encode(ManagerConfig(raft_id=7, advertise_address="192.0.2.1:2377", join_addresses=("a:1",))),
        lambda root: ManagerConfig.load(ManagerPaths(root, root)),
    ),
    File(
        "bootstrap.msgpack",
        msgspec.msgpack.encode(Bootstrap(cluster=Cluster(id="c", root_ca_cert=b"pem"), node=Node(id="n"))),
        lambda root: Bootstrap.load(root / "bootstrap.msgpack"),
    ),
    File(
        "standing.json",
        msgspec.json.encode(Standing(raft_id=7, index=9, members={7: "192.0.2.1:2377"}, announcements=(b"x",))),
        lambda root: Standing.load(root / "standing.json"),
    ),
    File(
        "ingress.json",
        b'{"addresses":["192.0.2.1"],"ports":[{"protocol":"tcp","published":80}]}',
        lambda root: Records(root).ingress(),
    ),
    File(
        "host.json",
        msgspec.json.encode(HostRecord("n1", 1, "192.0.2.1", "manager", ("pyswarmd",))),
        lambda root: load_record(root / "host.json", HostRecord),
    ),
    File(
        "images.json",
        b'{"images":{"' + DIGEST.encode() + b'":"' + DIGEST.encode() + b'"},"references":{}}',
        read_images,
    ),
    File(
        "manifest",
        b'{"schemaVersion":2,"config":{"mediaType":"m","digest":"%b","size":3},"layers":[]}' % DIGEST.encode(),
        lambda root: parse_manifest((root / "manifest").read_bytes()),
    ),
    File(
        "config",
        b'{"architecture":"amd64","os":"linux","created":"2026-01-01T00:00:00Z","config":{"Env":["A=b"],'
        b'"Healthcheck":{"Test":["CMD"],"Interval":1}},"rootfs":{"type":"layers","diff_ids":["%b"]}}' % DIGEST.encode(),
        lambda root: parse_config((root / "config").read_bytes()),
    ),
    File("log", b"2026-01-01T00:00:00.123456789+00:00 stdout F hello\n" * 2, parse_logs),
]


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_whole_file_is_read(file: File, tmp_path: Path) -> None:
    write(tmp_path, file, file.valid)
    assert file.read(tmp_path) is not None or file.name == "images.json"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(directory: Path, file: File, data: st.DataObject) -> None:
    write(directory, file, data.draw(damaged(file.valid)))
    with contextlib.suppress(PyswarmError):
        file.read(directory)


def write(root: Path, file: File, content: bytes) -> None:
    path = root / file.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)

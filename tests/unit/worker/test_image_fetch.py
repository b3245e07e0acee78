"""Images from peers: shared, resumed where a peer left off, given up when nobody asks any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from worker_fakes import FakeImages, eventually

from pyswarm.v1 import agent_pb2
from pyswarm_common.errors import NotFound, Unavailable
from pyswarm_worker import images as fetching
from pyswarm_worker.images import ImageFetcher

LAYER = b"0123456789" * 3


class Peers:
    """Some nodes: each has the image, and may break off after some bytes."""

    def __init__(self, breaks_after: dict[str, int | None]) -> None:
        self.breaks_after = breaks_after
        self.reads: list[tuple[str, str, int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.manifests = 0
        self.manager_answers = True

    async def locate(self, reference: str) -> list[str]:
        if not self.manager_answers:
            raise Unavailable("no leader")
        return list(self.breaks_after)

    @contextlib.asynccontextmanager
    async def connect(self, address: str) -> AsyncIterator[Peer]:
        yield Peer(self, address)


class Peer:
    def __init__(self, peers: Peers, address: str) -> None:
        self._peers = peers
        self._address = address

    async def get_image(self, reference: str) -> agent_pb2.GetImageResponse:
        self._peers.manifests += 1
        await self._peers.gate.wait()
        blobs = [
            agent_pb2.BlobDescriptor(digest="cfg", size_bytes=3),
            agent_pb2.BlobDescriptor(digest="layer", size_bytes=len(LAYER)),
        ]
        return agent_pb2.GetImageResponse(reference=reference, manifest=b"m", blobs=blobs)

    async def read_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        self._peers.reads.append((self._address, digest, offset))
        data = b"cfg" if digest == "cfg" else LAYER
        limit = self._peers.breaks_after[self._address] if digest == "layer" else None
        for at in range(offset, len(data), 4):
            if limit is not None and at >= limit:
                raise Unavailable("the peer has gone")
            yield data[at : at + 4]


def fetcher(peers: Peers, store: FakeImages) -> ImageFetcher:
    return ImageFetcher(store, peers.locate, peers.connect)


async def test_another_peer_goes_on_where_one_broke_off() -> None:
    peers, store = Peers({"a": 8, "b": None}), FakeImages()
    said: list[str] = []
    await fetcher(peers, store).ensure("app", said.append)
    assert store.blobs == {"cfg": b"cfg", "layer": LAYER}
    assert [read for read in peers.reads if read[1] == "layer"] == [("a", "layer", 0), ("b", "layer", 8)]
    assert said[-1] == "preparing: fetching image from a"


async def test_all_peers_gone_is_said_with_their_names() -> None:
    with pytest.raises(Unavailable, match=r"a: the peer has gone; b: the peer has gone"):
        await fetcher(Peers({"a": 8, "b": 12}), FakeImages()).ensure("app", lambda message: None)


async def test_what_is_here_is_not_fetched() -> None:
    peers, store = Peers({"a": None}), FakeImages()
    store.blobs["layer"] = LAYER
    await fetcher(peers, store).ensure("app", lambda message: None)
    assert [digest for _, digest, _ in peers.reads] == ["cfg"]
    await fetcher(peers, store).ensure("app", lambda message: None)
    assert peers.manifests == 1


async def test_many_tasks_share_one_fetch_and_one_that_goes_does_not_end_it() -> None:
    peers, store = Peers({"a": None}), FakeImages()
    peers.gate.clear()
    images = fetcher(peers, store)
    callers = [asyncio.create_task(images.ensure("app", lambda message: None)) for _ in range(3)]
    await eventually(lambda: peers.manifests == 1)
    callers[0].cancel()
    peers.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, type(None), type(None)]
    assert peers.manifests == 1


async def test_nobody_waits_any_more_so_nothing_goes_on() -> None:
    peers, store = Peers({"a": None}), FakeImages()
    peers.gate.clear()
    images = fetcher(peers, store)
    caller = asyncio.create_task(images.ensure("app", lambda message: None))
    await eventually(lambda: peers.manifests == 1)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    peers.gate.set()
    await asyncio.sleep(0)
    assert store.blobs == {}
    await images.ensure("app", lambda message: None)  # and it can be asked for again
    assert store.blobs["layer"] == LAYER


async def test_nobody_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_LOCATE_PAUSE_S", 0.0)
    with pytest.raises(NotFound, match="No such image: app:latest"):
        await fetcher(Peers({}), FakeImages()).ensure("app", lambda message: None)


async def test_without_a_manager_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_UNREACHABLE_PAUSE_S", 0.001)
    peers, store = Peers({"a": None}), FakeImages()
    peers.manager_answers = False
    said: list[str] = []
    caller = asyncio.create_task(fetcher(peers, store).ensure("app", said.append))
    await eventually(lambda: any("waiting for a manager" in message for message in said))
    peers.manager_answers = True
    await caller


async def test_what_no_node_has_is_pulled_with_the_services_credentials() -> None:
    peers, store, pulls = Peers({}), FakeImages(), []

    async def pull(reference: str, auth: bytes, progress: fetching.Progress) -> None:
        pulls.append((reference, auth))
        progress("preparing: pulling image from reg.test")

    said: list[str] = []
    fetcher = ImageFetcher(store, peers.locate, peers.connect, pull)
    await fetcher.ensure("reg.test/app:1", said.append, b"secret")
    assert pulls == [("reg.test/app:1", b"secret")]
    assert said == ["preparing: pulling image from reg.test"]
    peers.manager_answers = False  # its name says who has it: no manager is needed
    await fetcher.ensure("reg.test/other:1", said.append)
    assert pulls[1:] == [("reg.test/other:1", b"")]


async def test_a_registry_that_refuses_is_an_answer_with_its_reason() -> None:
    async def pull(reference: str, auth: bytes, progress: fetching.Progress) -> None:
        raise Unavailable("registry reg.test cannot be reached: connection refused")

    fetcher = ImageFetcher(FakeImages(), Peers({}).locate, Peers({}).connect, pull)
    with pytest.raises(NotFound, match=r"No such image: reg\.test/app:1: .*connection refused"):
        await fetcher.ensure("reg.test/app:1", lambda _: None)


async def test_a_node_that_has_it_is_asked_before_the_registry() -> None:
    async def pull(reference: str, auth: bytes, progress: fetching.Progress) -> None:
        raise AssertionError(reference)

    peers, store = Peers({"a": None}), FakeImages()
    await ImageFetcher(store, peers.locate, peers.connect, pull).ensure("reg.test/app:1", lambda _: None)
    assert peers.reads

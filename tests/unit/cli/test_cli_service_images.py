"""The image of a service is pinned to what its registry has, or docker's warning is printed; credentials if asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import Done, Run, run_cli
from fake_daemon import FakeDaemon

from pyswarm.v1 import node_pb2, types_pb2

DIGEST = "reg.test/app:1@sha256:" + "a" * 64
WARNING = """\
image reg.test/app:1 could not be accessed on a registry to record
its digest. Each node will access reg.test/app:1 independently,
possibly leading to different nodes running different
versions of the image.

"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    fake = FakeDaemon(tmp_path)
    yield fake
    fake.close()


@pytest.fixture
def run(daemon: FakeDaemon, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs `pyswarm …` in this process, as `main` does."""

    def invoke(*argv: str) -> Done:
        return run_cli(capfd, "-H", daemon.address, *argv)

    return invoke


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"auth": "dTpHZWhlaW0tNDcxMQ=="}  # u:Geheim-4711
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"reg.test": entry}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def spec_of(daemon: FakeDaemon) -> types_pb2.ServiceSpec:
    (service,) = daemon.services.values()
    return service.spec


def test_the_digest_and_the_platforms_are_kept(daemon: FakeDaemon, run: Run) -> None:
    platforms = [types_pb2.Platform(architecture="arm64", os="linux")]
    daemon.resolved["reg.test/app:1"] = node_pb2.ResolveImageResponse(reference=DIGEST, platforms=platforms)
    done = run("service", "create", "-d", "--name", "web", "reg.test/app:1")
    assert (done.code, done.err) == (0, "")
    assert spec_of(daemon).task.container.image == DIGEST
    assert list(spec_of(daemon).task.placement.platforms) == platforms
    assert spec_of(daemon).task.container.registry_auth == b""


def test_a_registry_that_does_not_answer_is_a_warning(daemon: FakeDaemon, run: Run) -> None:
    daemon.resolved["reg.test/app:1"] = node_pb2.ResolveImageResponse(reason="registry reg.test cannot be reached")
    done = run("service", "create", "-d", "--name", "web", "reg.test/app:1")
    assert (done.code, done.err) == (0, WARNING)
    assert spec_of(daemon).task.container.image == "reg.test/app:1"


@pytest.mark.parametrize("image", [DIGEST, "reg.test/app:1"])
def test_nobody_is_asked_for_a_digest_that_is_given_or_not_wanted(daemon: FakeDaemon, run: Run, image: str) -> None:
    flags = [] if image == DIGEST else ["--no-resolve-image"]
    assert run("service", "create", "-d", "--name", "web", *flags, image).err == ""
    assert daemon.resolutions == []
    assert spec_of(daemon).task.container.image == image


@pytest.mark.usefixtures("docker_config")
def test_credentials_go_along_when_asked_and_are_printed_nowhere(daemon: FakeDaemon, run: Run) -> None:
    done = run("service", "create", "-d", "--name", "web", "--with-registry-auth", "reg.test/app:1")
    sent = json.loads(spec_of(daemon).task.container.registry_auth)
    assert sent == {"username": "u", "password": "Geheim-4711", "serveraddress": "reg.test"}
    assert json.loads(daemon.resolutions[0].registry_auth) == sent
    assert "4711" not in done.out + done.err + run("service", "inspect", "web").out


@pytest.mark.usefixtures("docker_config")
def test_an_update_asks_only_for_a_new_image(daemon: FakeDaemon, run: Run) -> None:
    daemon.put_service("web", 1)
    run("service", "update", "-d", "--label-add", "a=b", "web")
    assert daemon.resolutions == []
    daemon.resolved["reg.test/app:1"] = node_pb2.ResolveImageResponse(reference=DIGEST)
    run("service", "update", "-d", "--image", "reg.test/app:1", "web")
    assert spec_of(daemon).task.container.image == DIGEST
    run("service", "update", "-d", "--with-registry-auth", "web")
    assert len(daemon.resolutions) == 1
    assert b"4711" in spec_of(daemon).task.container.registry_auth

"""Docker's own file of credentials, and helpers, as they come."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_cli.parse.docker_config import HUB, Helper, helper_auth, registry_of, stored_auth
from pyswarm_cli.service.images import registry_auth
from pyswarm_common.errors import FailedPrecondition, InvalidArgument


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("nginx", HUB),
        ("team/app:1", HUB),
        ("docker.io/team/app", HUB),
        ("reg.test/app", "reg.test"),
        ("localhost/app", "localhost"),
        ("reg:5000/app@sha256:0", "reg:5000"),
    ],
)
def test_which_registry_an_image_is_from(image: str, registry: str) -> None:
    assert registry_of(image) == registry


def config(**values: object) -> bytes:
    return json.dumps(values).encode()


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def test_stored_credentials() -> None:
    stored = config(auths={"https://reg.test/v1/": auth("u:p:q"), HUB: {"identitytoken": "t"}, "empty": {}})
    assert json.loads(bytes(stored_auth(stored, "reg.test"))) == {  # type: ignore[arg-type]
        "username": "u",
        "password": "p:q",
        "serveraddress": "reg.test",
    }
    assert json.loads(bytes(stored_auth(stored, HUB))) == {"identitytoken": "t", "serveraddress": HUB}  # type: ignore[arg-type]
    assert stored_auth(stored, "empty") == stored_auth(stored, "other") == b""


def test_helpers_come_first_and_one_for_a_registry_before_the_one_for_all() -> None:
    stored = config(auths={"reg.test": auth("u:p")}, credHelpers={"reg.test": "ecr"}, credsStore="pass")
    assert stored_auth(stored, "reg.test") == Helper("docker-credential-ecr")
    assert stored_auth(stored, "other.test") == Helper("docker-credential-pass")
    with pytest.raises(InvalidArgument, match="is no program"):
        stored_auth(config(credsStore="../bin/sh"), "x")


def test_what_helpers_say() -> None:
    assert json.loads(helper_auth(b'{"Username":"u","Secret":"s"}', "r")) == {
        "username": "u",
        "password": "s",
        "serveraddress": "r",
    }
    assert json.loads(helper_auth(b'{"Username":"<token>","Secret":"s"}', "r"))["identitytoken"] == "s"
    assert helper_auth(b"{}", "r") == b""


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: config(auths={"r": {"auth": text}})))
def test_any_file_and_any_answer_are_read_or_refused_without_being_quoted(data: bytes) -> None:
    for read in (stored_auth, helper_auth):
        try:
            read(data, "r")
        except InvalidArgument as error:
            refusal = str(error)
        else:
            continue
        assert refusal.startswith(("docker's config.json", "the credential helper's answer for r is"))


def test_a_helper_is_asked_with_the_registry_on_its_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_bytes(config(credsStore="test"))
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread server\n[ $# = 1 ] && echo \'{"Username":"\'$server\'","Secret":"s"}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    environment = {"DOCKER_CONFIG": str(tmp_path)}
    assert json.loads(registry_auth("reg.test", environment))["username"] == "reg.test"
    helper.write_text("#!/bin/sh\nexit 1\n")
    assert registry_auth("reg.test", environment) == b""
    helper.unlink()
    with pytest.raises(FailedPrecondition, match="docker-credential-test cannot be asked"):
        registry_auth("reg.test", environment)
    assert registry_auth("reg.test", {"HOME": str(tmp_path / "nobody")}) == b""

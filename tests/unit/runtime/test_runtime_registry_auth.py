"""Credentials and challenges, as they come from outside."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common.errors import InvalidArgument
from pyswarm_runtime.registry_auth import Challenge, Credentials, read_challenge, read_credentials


def test_credentials() -> None:
    assert read_credentials(b"") == Credentials()
    found = read_credentials(b'{"username":"u","password":"p","serveraddress":"r"}')
    assert found.basic == "dTpw"
    assert read_credentials(b'{"auth":"dTpw"}').basic == "dTpw"
    assert "p4ss" not in repr(Credentials(username="u", password="p4ss", identitytoken="p4ss"))


@given(st.binary(max_size=80))
def test_any_bytes_are_credentials_or_refused_without_being_quoted(data: bytes) -> None:
    try:
        read_credentials(data)
    except InvalidArgument as error:
        refusal = str(error)
    else:
        return
    assert refusal == "the registry's credentials are not docker's JSON: log in again"


@pytest.mark.parametrize(
    ("header", "secure", "expected"),
    [
        (
            'Bearer realm="https://auth.test/token",service="reg"',
            True,
            Challenge("bearer", "https://auth.test/token", "reg"),
        ),
        ('bearer realm="http://auth.test/token"', False, Challenge("bearer", "http://auth.test/token")),
        ('Bearer realm="http://auth.test/token"', True, None),
        ('Bearer realm="file:///etc/passwd"', False, None),
        ("Bearer", False, None),
        ('Basic realm="x"', True, Challenge("basic")),
        ("Negotiate", True, None),
        ("Bearer " + "x" * 5000, True, None),
        ('Bearer realm="https://[x/"', True, None),
    ],
)
def test_challenges(header: str, secure: bool, expected: Challenge | None) -> None:
    assert read_challenge(header, is_secure=secure) == expected


@given(
    st.text(max_size=100) | st.text(max_size=100).map(lambda text: f"Bearer realm={json.dumps(text)}"), st.booleans()
)
def test_any_header_is_a_challenge_or_none(header: str, secure: bool) -> None:
    found = read_challenge(header, is_secure=secure)
    if found is not None and found.scheme == "bearer":
        assert found.realm.lower().startswith("https://" if secure else "http")

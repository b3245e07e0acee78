"""`--allow-from` and its -add and -rm: what they make of a spec, and when the user is warned."""

from __future__ import annotations

import pytest

from pyswarm_cli.service.parts.policy import apply_policy, change_policy, unknown_sources
from pyswarm_common.model import EndpointSpec


def changed(have: str, *, add: str = "", rm: str = "") -> str:
    options = {"allow_from_add": tuple(add.split()), "allow_from_rm": tuple(rm.split())}
    return " ".join(change_policy(EndpointSpec(allow_from=tuple(have.split())), options).allow_from)


@pytest.mark.parametrize(
    ("given", "have", "wanted"),
    [
        ((), ("web",), ("web",)),
        (("api", "ingress", "api"), ("web",), ("api", "ingress")),
        (("none",), ("web",), ("none",)),
        (("",), ("web",), ()),
    ],
)
def test_allow_from_is_the_whole_list(given: tuple[str, ...], have: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    assert apply_policy(EndpointSpec(allow_from=have), {"allow_from": given}).allow_from == wanted


def test_sources_are_added_and_removed() -> None:
    assert changed("web", add="api") == "web api"
    assert changed("web api", rm="web") == "api"
    assert changed("web", add="api", rm="web") == "api"
    assert changed("", add="web") == "web"
    assert changed("web", rm="other") == "web"


def test_taking_the_last_source_away_lets_nobody_in() -> None:
    assert changed("web", rm="web") == "none"
    assert changed("none", rm="none") == ""
    assert changed("", rm="web") == ""


def test_a_first_source_takes_the_place_of_none() -> None:
    assert changed("none", add="web") == "web"


def test_words_and_the_service_itself_are_known() -> None:
    assert unknown_sources(("web", "db", "ingress", "none", "typo"), "db", {"web"}) == ["typo"]

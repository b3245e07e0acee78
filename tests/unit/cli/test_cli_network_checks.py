"""`network verify` and `network trace`: what is printed, and with which exit code it ends."""

from __future__ import annotations

import json

import pytest

from pyswarm.v1 import network_checks_pb2 as pb
from pyswarm_cli.commands.network_checks import place_of
from pyswarm_cli.views import network_checks as view
from pyswarm_common.errors import InvalidArgument

FOUND = pb.NetworkFinding(kind="network", id="n1", name="web", problems=["device br0 is missing", "route is missing"])
WELL = pb.NodeNetworks(
    node_id="1",
    node_hostname="one",
    checked={"sandboxes": 3, "networks": 0},
    tables=[pb.TableVersion(held=7, current=7)],
)


def test_a_node_on_which_all_is_well() -> None:
    assert view.node_text(WELL) == "one: checked 3 sandboxes, 1 table: everything is as wanted\n"
    assert view.is_well(WELL, dry_run=False)


def test_what_was_repaired_is_well_and_what_was_only_seen_is_not() -> None:
    answer = pb.NodeNetworks(node_hostname="one", findings=[FOUND])
    assert view.node_text(answer) == (
        "one: checked 0 tables: 2 problems found and repaired\n"
        "  repaired: network web (n1): device br0 is missing\n"
        "  repaired: network web (n1): route is missing\n"
    )
    assert view.is_well(answer, dry_run=False)
    assert not view.is_well(answer, dry_run=True)


def test_what_is_left_is_said_to_be_wrong() -> None:
    finding = pb.NetworkFinding(kind="host", problems=["forwarding is off"], left=["forwarding is off"])
    answer = pb.NodeNetworks(node_hostname="one", findings=[finding])
    assert view.node_text(answer).splitlines()[1] == "  wrong: host: forwarding is off"
    assert not view.is_well(answer, dry_run=False)


@pytest.mark.parametrize(("held", "current", "stale"), [(7, 8, True), (8, 8, False), (9, 8, False), (9, 0, False)])
def test_a_table_is_stale_when_the_managers_had_more(held: int, current: int, stale: bool) -> None:
    answer = pb.NodeNetworks(node_hostname="one", tables=[pb.TableVersion(name="web", held=held, current=current)])
    assert ("stale: the table of network web" in view.node_text(answer)) is stale
    assert view.is_well(answer, dry_run=False) is not stale


def test_a_node_that_is_away_is_not_well() -> None:
    assert not view.is_well(pb.NodeNetworks(away="node two is down"), dry_run=False)


def test_json_has_everything() -> None:
    shown = view.node_json(pb.NodeNetworks(node_hostname="one", findings=[FOUND], repairs=4))
    assert json.loads(json.dumps(shown))["Findings"][0]["Problems"] == list(FOUND.problems)
    assert shown["Repairs"] == 4


STEPS = [
    pb.TraceStep(outcome=pb.TraceStep.OUTCOME_OK, step="name", node_hostname="one", text="web is 10.0.1.2"),
    pb.TraceStep(outcome=pb.TraceStep.OUTCOME_STOP, step="vip", node_hostname="one", text="no backend"),
    pb.TraceStep(outcome=pb.TraceStep.OUTCOME_STOP, step="verdict", text="stops: no backend"),
]


def test_steps_as_text_end_with_the_verdict() -> None:
    assert "".join(map(view.step_text, STEPS)) == (
        "ok   name      web is 10.0.1.2 [one]\nSTOP vip       no backend [one]\nstops: no backend\n"
    )


def test_only_a_verdict_that_says_so_goes_through() -> None:
    through = pb.TraceStep(outcome=pb.TraceStep.OUTCOME_THROUGH, step="verdict", text="goes through to web.1")
    assert not view.goes_through(STEPS)
    assert not view.goes_through([])
    assert view.goes_through([*STEPS[:1], through])
    assert view.trace_json([through]) == {
        "Steps": [{"Step": "verdict", "Outcome": "through", "Node": "", "Text": "goes through to web.1"}],
        "Through": True,
    }


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("web", ("web", 0)),
        ("web:80", ("web", 80)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("fd00::1", ("fd00::1", 0)),
        ("[fd00::1]:80", ("fd00::1", 80)),
        ("[fd00::1]", ("fd00::1", 0)),
    ],
)
def test_places(text: str, place: tuple[str, int]) -> None:
    assert place_of(text) == place


@pytest.mark.parametrize(
    "text", [":80", "web:", "web:x", "web:0", "web:65536", "web:-1", "[fd00::1", "[fd00::1]80", ""]
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(InvalidArgument):
        place_of(text)

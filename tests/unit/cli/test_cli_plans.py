"""Plans at the command line: what is printed, what is written down, and files that are no plans."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyswarm.v1 import control_pb2, types_pb2
from pyswarm.v1 import plans_pb2 as pb
from pyswarm_cli.parse.plan_files import MAX_BYTES, parse_plan
from pyswarm_cli.planning import refuse_credentials, write_plan
from pyswarm_cli.views.plans import forecast_json, loss_text, plan_text, summary
from pyswarm_common.errors import InvalidArgument

SCALE = pb.PlannedRequest(
    update_service=control_pb2.UpdateServiceRequest(
        service_id="s", version=7, spec=types_pb2.ServiceSpec(name="web", replicas=3)
    )
)
PLAN = pb.Plan(format=1, cluster_id="c", index=1 << 40, outcome="abc", requests=[SCALE])


def planned(kind: int, name: str, source: str = "", target: str = "", at_s: float = 0.0) -> pb.PlannedTask:
    return pb.PlannedTask(
        kind=kind,  # type: ignore[arg-type]
        service_name="web",
        task_name=name,
        from_node_id=source,
        from_hostname=source,
        to_node_id=target,
        to_hostname=target,
        image="web:2",
        at_s=at_s,
    )


FORECAST = pb.Forecast(
    index=123,
    tasks=[
        planned(pb.PLANNED_KIND_REPLACE, "web.1", "n1", "n1"),
        planned(pb.PLANNED_KIND_MOVE, "web.2", "n1", "n2", 10.0),
        planned(pb.PLANNED_KIND_START, "web.3", "", "n3", 10.0),
        planned(pb.PLANNED_KIND_STOP, "web.4", "n3"),
    ],
    images=[pb.ImageFetch(node_id="n2", hostname="n2", image="web:2")],
    pending=[pb.PendingTask(service_name="web", task_name="web.5", reason="no suitable node")],
    takes_s=20.0,
)


def test_a_plan_is_told_in_words() -> None:
    assert plan_text(FORECAST).splitlines() == [
        "Plan made at version 123. Nothing was changed.",
        "",
        "TASK    ACTION    FROM   TO   IMAGE   AT",
        "web.1   replace   n1     n1   web:2   0s",
        "web.2   move      n1     n2   web:2   10s",
        "web.3   start     -      n3   web:2   10s",
        "web.4   stop      n3     -    web:2   0s",
        "",
        "Images to fetch:",
        "  n2: web:2",
        "",
        "Would wait:",
        "  web.5: no suitable node",
        "",
        "1 task started, 1 task stopped, 1 task moved, 1 task replaced in place; it does not fit: 1 task would wait",
        "this takes 20 s, and as long as the containers need to start and stop",
    ]


def test_a_plan_that_does_nothing_says_so() -> None:
    assert summary(pb.Forecast()) == "no task is touched"
    assert forecast_json(pb.Forecast(index=3)) | {"Version": 3, "Fits": True, "Complete": True, "Tasks": []} == (
        forecast_json(pb.Forecast(index=3))
    )


def test_a_lost_majority_is_told_before_what_follows_it() -> None:
    quorum = pb.QuorumEffect(managers=3, lost=2, reachable=1, majority=2, holds=False)
    nodes = [pb.LostNode(hostname="n2", is_manager=True, tasks=1), pb.LostNode(hostname="n3", is_manager=True)]
    outages = [pb.Outage(service_name="web", recovers=True)]
    answer = pb.SimulateLossResponse(nodes=nodes, quorum=quorum, forecast=FORECAST, outages=outages)
    said = loss_text(answer).splitlines()
    assert "  n2 (manager, 1 task running)" in said
    assert any("1 of 3 managers would be reachable, and 2 must be: NO QUORUM" in line for line in said)
    assert "web: no task of it runs until its tasks run elsewhere." in said
    assert said.index("Once the managers have a majority again:") < said.index("Would wait:")


def test_a_plan_comes_back_from_its_file_and_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "plan"
    file.write_text("older, longer than the plan " * 100)
    file.chmod(0o644)
    write_plan(str(file), PLAN)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert parse_plan(file.read_bytes()) == PLAN


def test_credentials_of_registries_are_never_written() -> None:
    spec = types_pb2.ServiceSpec()
    spec.task.container.registry_auth = b"hunter2"
    request = pb.PlannedRequest(create_service=control_pb2.CreateServiceRequest(spec=spec))
    with pytest.raises(InvalidArgument, match="credentials") as refused:
        refuse_credentials([SCALE, request])
    assert "hunter2" not in str(refused.value)


@given(st.binary(max_size=300))
@example(b'{"requests": [{"updateService": {"version": "x"}}]}')
@example(b'{"requests": ' + b"[" * 5000)
@example(b"\xff{}")
@example(b"null")
def test_a_file_that_is_no_plan_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse_plan(data)


def test_a_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="larger"):
        parse_plan(b" " * (MAX_BYTES + 1))

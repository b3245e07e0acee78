"""Forecasts: which images nodes lack, and what is said of jobs and schedules."""

from __future__ import annotations

import pytest

from pyswarm.v1 import plans_pb2 as pb
from pyswarm_common.model import (
    ContainerSpec,
    CronSpec,
    Node,
    NodeDescription,
    NodeSpec,
    NodeState,
    NodeStatus,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from pyswarm_manager.api.forecasts import Question, add_images, forecast
from pyswarm_manager.store.changes import Create
from pyswarm_manager.store.tables import Tables

INVENTORIES = {"has": ("web:1", "registry.example/app@sha256:1234", "web:latest"), "lacks": ("other:1",)}


@pytest.mark.parametrize(
    ("image", "is_there"),
    [
        ("web:1", True),
        ("docker.io/library/web:1", True),
        ("web", True),
        ("web:2", False),
        ("registry.example/app@sha256:1234", True),
        ("registry.example:5000/web", False),
    ],
)
def test_an_image_is_fetched_where_it_is_not(image: str, is_there: bool) -> None:
    start = pb.PlannedTask(kind=pb.PLANNED_KIND_START, to_node_id="has", to_hostname="h", image=image)
    found = pb.Forecast(tasks=[start])
    add_images(found, INVENTORIES.get)
    assert [item.image for item in found.images] == ([] if is_there else [image])


def test_each_image_is_fetched_once_by_each_node_and_by_none_that_only_stops() -> None:
    found = pb.Forecast(
        tasks=[
            pb.PlannedTask(kind=pb.PLANNED_KIND_MOVE, from_node_id="has", to_node_id="lacks", image="web:1"),
            pb.PlannedTask(kind=pb.PLANNED_KIND_START, to_node_id="lacks", image="web:1"),
            pb.PlannedTask(kind=pb.PLANNED_KIND_STOP, from_node_id="lacks", image="web:3"),
            pb.PlannedTask(kind=pb.PLANNED_KIND_REPLACE, from_node_id="away", to_node_id="away", image="web:1"),
        ]
    )
    add_images(found, INVENTORIES.get)
    assert [(item.node_id, item.image, item.unknown) for item in found.images] == [
        ("lacks", "web:1", False),
        ("away", "web:1", True),
    ]


@pytest.mark.parametrize(
    ("mode", "said", "started"),
    [
        (ServiceMode.CRON, "what its schedule starts later is not in the plan", 0),
        (ServiceMode.GLOBAL_JOB, "is taken to run on", 1),
        (ServiceMode.REPLICATED, "", 1),
    ],
)
def test_what_cannot_be_foreseen_is_said(mode: ServiceMode, said: str, started: int) -> None:
    tables = Tables()
    node = Node(
        id="n1",
        spec=NodeSpec(),
        description=NodeDescription(hostname="n1"),
        status=NodeStatus(state=NodeState.READY),
    )
    tables.put(node)
    cron = CronSpec(schedule="* * * * *") if mode is ServiceMode.CRON else None
    replicas = 1 if mode is ServiceMode.REPLICATED else None
    task = TaskSpec(container=ContainerSpec(image="img"))
    service = Service(id="s", spec=ServiceSpec(name="web", mode=mode, replicas=replicas, cron=cron, task=task))
    found = forecast(Question(tables, [Create(service)], ["s"], 1000.0), lambda: False)
    assert not found.cut_off
    assert len(found.tasks) == started
    assert said in "".join(found.notes)
    assert bool(found.notes) is bool(said)

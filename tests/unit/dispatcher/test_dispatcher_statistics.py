"""Whom agents are asked about, and that what they say is bounded."""

from __future__ import annotations

import pytest

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import AutoscaleSpec, Service, ServiceSpec
from pyswarm_manager.autoscale.rule import Reading
from pyswarm_manager.dispatcher.statistics import USAGES_LIMIT, StatisticsDesk, ignore
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.tables import Tables

SCALED = Service(id="hot", spec=ServiceSpec(name="hot", autoscale=AutoscaleSpec(1, 2, 50)))
PLAIN = Service(id="hot", spec=ServiceSpec(name="hot"))
STOPPED = Service(id="hot", spec=ServiceSpec(name="hot", autoscale=AutoscaleSpec(1, 2, 50), stopped=True))


def test_agents_are_asked_only_about_services_that_somebody_looks_at() -> None:
    desk = StatisticsDesk(Tables(), ignore)
    assert desk.wanted() is None
    assert not desk.apply(Event(None, PLAIN))
    assert desk.apply(Event(PLAIN, SCALED))
    assert not desk.apply(Event(SCALED, SCALED))
    assert list(desk.message().service_ids) == ["hot"]
    assert desk.apply(Event(SCALED, STOPPED))
    assert desk.apply(Event(STOPPED, SCALED))
    assert desk.apply(Event(SCALED, None))
    assert list(desk.message().service_ids) == []


def test_a_new_term_asks_about_what_is_in_the_store() -> None:
    tables = Tables()
    tables.put(SCALED)
    wanted = StatisticsDesk(tables, ignore).wanted()
    assert wanted is not None
    assert list(wanted.service_ids) == ["hot"]
    assert wanted.period_s > 0


def test_what_an_agent_says_is_handed_on_and_too_much_is_refused() -> None:
    heard: list[object] = []
    desk = StatisticsDesk(Tables(), lambda node, readings: heard.append((node, list(readings))))
    desk.accept("n1", pb.TaskStatistics(tasks=[pb.TaskUsage(task_id="t1", nano_cpus=5, memory_bytes=7)]))
    assert heard == [("n1", [("t1", Reading(5, 7))])]
    usage = pb.TaskUsage(task_id="t1")
    with pytest.raises(InvalidArgument, match="at most"):
        desk.accept("n1", pb.TaskStatistics(tasks=[usage] * (USAGES_LIMIT + 1)))

"""The history that apply keeps of each service's specs, and the circles of dependencies that it refuses."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from store_helpers import commit, refusal, service

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import (
    Cluster,
    ClusterSpec,
    ContainerSpec,
    Service,
    ServiceDependency,
    TaskSpec,
    UpdateState,
    UpdateStatus,
)
from pyswarm_common.model.audit import AuditRecord
from pyswarm_manager.store.apply import Applied, apply
from pyswarm_manager.store.changes import ChangeSet, Create, Update, delete
from pyswarm_manager.store.encoding import decode_snapshot, encode_snapshot
from pyswarm_manager.store.revisions import revisions_of
from pyswarm_manager.store.tables import Tables


@pytest.fixture
def tables() -> Tables:
    tables = Tables()
    commit(tables, Create(service("web")))
    return tables


def web(tables: Tables) -> Service:
    return tables.services["id-web"]


def change(tables: Tables, image: str) -> None:
    spec = replace(web(tables).spec, task=TaskSpec(container=ContainerSpec(image=image)))
    commit(tables, Update(replace(web(tables), spec=spec)), now=2.0)


def images(tables: Tables) -> list[tuple[int, str]]:
    found = revisions_of(web(tables), tables.service_revisions.get)
    return [(revision.number, revision.spec.task.container.image) for revision in found]


def test_every_spec_is_kept_newest_first(tables: Tables) -> None:
    for image in ("b", "c"):
        change(tables, image)
    assert images(tables) == [(3, "c"), (2, "b"), (1, "nginx")]
    assert web(tables).revision == 3
    assert tables.service_revisions["id-web.3"].meta.created_at == 2.0


def test_the_present_spec_is_not_written_again(tables: Tables) -> None:
    change(tables, "nginx2")
    change(tables, "nginx2")
    status = UpdateStatus(state=UpdateState.UPDATING)
    commit(tables, Update(replace(web(tables), update_status=status)))
    assert images(tables) == [(2, "nginx2"), (1, "nginx")]


def test_a_spec_that_comes_back_is_a_revision_of_its_own(tables: Tables) -> None:
    for image in ("b", "c", "b"):
        change(tables, image)
    assert images(tables) == [(4, "b"), (3, "c"), (2, "b"), (1, "nginx")]


@pytest.mark.parametrize(("limit", "kept"), [(0, 10), (3, 3), (1, 1)])
def test_the_history_is_bounded(tables: Tables, limit: int, kept: int) -> None:
    commit(tables, Create(Cluster(id="cluster", spec=ClusterSpec(revision_limit=limit))))
    for number in range(20):
        change(tables, f"image:{number}")
    assert [number for number, _ in images(tables)] == list(range(21, 21 - kept, -1))
    assert len(tables.service_revisions) == kept


def test_a_lower_limit_takes_effect_at_the_next_change(tables: Tables) -> None:
    commit(tables, Create(Cluster(id="cluster")))
    for number in range(5):
        change(tables, f"image:{number}")
    cluster = tables.clusters["cluster"]
    commit(tables, Update(replace(cluster, spec=ClusterSpec(revision_limit=2))))
    change(tables, "last")
    assert images(tables) == [(7, "last"), (6, "image:4")]
    assert len(tables.service_revisions) == 2


def test_several_changes_in_one_set_are_several_revisions(tables: Tables) -> None:
    first = replace(web(tables), spec=replace(web(tables).spec, replicas=2))
    index = tables.index + 1
    second = replace(first, meta=replace(first.meta, version=index), spec=replace(first.spec, replicas=3))
    commit(tables, Update(first), Update(second))
    assert [number for number, _ in images(tables)] == [3, 2, 1]


def test_the_history_goes_with_the_service(tables: Tables) -> None:
    commit(tables, Create(service("api")))
    change(tables, "b")
    commit(tables, delete(web(tables)))
    assert list(tables.service_revisions) == ["id-api.1"]


def test_who_asked_is_the_author_and_else_the_planner(tables: Tables) -> None:
    spec = replace(web(tables).spec, replicas=7)
    asked = AuditRecord(actor_kind="token", actor="ci")
    result = apply(tables, tables.index + 1, ChangeSet((Update(replace(web(tables), spec=spec)),), 3.0, asked))
    assert isinstance(result, Applied)
    assert tables.service_revisions["id-web.2"].author == "ci"
    assert tables.service_revisions["id-web.1"].author == "planner"
    (record,) = tables.audit
    assert [target.kind for target in record.targets] == ["service"]


def test_a_snapshot_holds_the_history(tables: Tables) -> None:
    change(tables, "b")
    assert decode_snapshot(encode_snapshot(tables)).service_revisions == tables.service_revisions


# ---- dependencies


def depending(name: str, *on: str, **fields: object) -> Service:
    return service(name, depends_on=tuple(ServiceDependency(service=other) for other in on), **fields)


def test_first_tasks_wait_from_the_creation_and_from_a_start() -> None:
    tables = Tables()
    commit(tables, Create(depending("app", "db")), Create(depending("later", "db", stopped=True)))
    app, later = tables.services["id-app"], tables.services["id-later"]
    assert (app.awaits_dependencies, later.awaits_dependencies) == (True, False)
    commit(tables, Update(replace(later, spec=replace(later.spec, stopped=False))))
    commit(tables, Update(replace(app, awaits_dependencies=False)))
    assert tables.services["id-later"].awaits_dependencies
    app = tables.services["id-app"]
    commit(tables, Update(replace(app, spec=replace(app.spec, replicas=4))))
    assert not tables.services["id-app"].awaits_dependencies


@pytest.mark.parametrize(
    ("services", "sentence"),
    [
        ([depending("a", "a")], "a -> a"),
        ([depending("a", "b"), depending("b", "a")], "b -> a -> b"),
        ([depending("a", "x", "b"), depending("b", "y", "c"), depending("c", "a")], "c -> a -> b -> c"),
    ],
)
def test_a_circle_is_refused(services: list[Service], sentence: str) -> None:
    tables = Tables()
    for item in services[:-1]:
        commit(tables, Create(item))
    error = refusal(tables, Create(services[-1]))
    assert isinstance(error, InvalidArgument)
    assert str(error) == f"services may not wait for each other in a circle: {sentence}"


def test_a_circle_within_one_change_set_is_refused() -> None:
    error = refusal(Tables(), Create(depending("a", "b")), Create(depending("b", "a")))
    assert "circle" in str(error)


def test_what_does_not_exist_and_what_is_shared_are_no_circles() -> None:
    tables = Tables()
    commit(tables, Create(depending("a", "nobody")))
    commit(tables, Create(depending("b", "a", "nobody")), Create(depending("c", "a", "b")))

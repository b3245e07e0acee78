"""What a service's history and a difference of two specs look like."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pyswarm_cli.service.parts.dependencies import change_dependencies, dependency
from pyswarm_cli.views import revisions as view
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import (
    ContainerSpec,
    DependencyCondition,
    EndpointSpec,
    FailureAction,
    Meta,
    Mount,
    NetworkAttachmentSpec,
    Placement,
    PortConfig,
    RestartPolicy,
    ServiceDependency,
    ServiceRevision,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)

FIRST = ServiceSpec(
    name="web",
    labels={"tier": "front"},
    replicas=2,
    task=TaskSpec(container=ContainerSpec(image="nginx:1", env=("A=1", "B=2"), registry_auth=b"hunter2")),
)


def retasked(**container: object) -> ServiceSpec:
    return replace(FIRST, task=replace(FIRST.task, container=replace(FIRST.task.container, **container)))


def revision(number: int, spec: ServiceSpec, author: str = "root") -> ServiceRevision:
    meta = Meta(version=number, created_at=1_000_000.0 + number)
    return ServiceRevision(id=f"web.{number}", meta=meta, service_id="web", number=number, spec=spec, author=author)


CHANGES = [
    (retasked(image="nginx:2"), "image nginx:1 -> nginx:2"),
    (replace(FIRST, replicas=5), "replicas 2 -> 5"),
    (replace(FIRST, stopped=True), "stopped false -> true"),
    (replace(FIRST, labels={}), "labels.tier front removed"),
    (replace(FIRST, labels={"tier": "back", "a": "b"}), "labels.a b, labels.tier front -> back"),
    (retasked(env=("A=1", "C=3")), "env -B=2 +C=3"),
    (retasked(env=("B=2", "A=1")), "env A=1, B=2 -> B=2, A=1"),
    (retasked(mounts=(Mount(source="/a", target="/b", read_only=True),)), "mounts +source=/a,target=/b,read_only=true"),
    (retasked(registry_auth=b"other"), "(nothing that is shown)"),
    (replace(FIRST, endpoint=EndpointSpec(ports=(PortConfig(target_port=80),))), "endpoint.ports +target_port=80"),
    (
        replace(FIRST, update=UpdateConfig(parallelism=2, delay_s=1.5, failure_action=FailureAction.ROLLBACK)),
        (
            "update.parallelism 2, update.delay_s 1.5s, update.failure_action rollback, update.max_failure_ratio 0, "
            "update.order stop-first"
        ),
    ),
    (
        replace(FIRST, task=replace(FIRST.task, networks=(NetworkAttachmentSpec(target="id-of-net"),))),
        "networks +target=backend",
    ),
    (
        replace(FIRST, task=replace(FIRST.task, restart=RestartPolicy(delay_s=2.0))),
        "restart.delay_s 2s",
    ),
    (
        replace(FIRST, task=replace(FIRST.task, placement=Placement(constraints=("node.role==worker",)))),
        "placement.constraints +node.role==worker",
    ),
    (
        replace(FIRST, depends_on=(ServiceDependency(service="db", condition=DependencyCondition.HEALTHY),)),
        "depends_on +service=db,condition=healthy",
    ),
]


@pytest.mark.parametrize(("spec", "words"), CHANGES, ids=[words[:20] for _, words in CHANGES])
def test_what_changed_in_one_line(spec: ServiceSpec, words: str) -> None:
    assert view.summary(FIRST, revision(2, spec), {"id-of-net": "backend"}) == words


def test_a_history_begins_with_the_creation_or_with_what_is_kept() -> None:
    second = retasked(image="nginx:2")
    found = view.rows([revision(1, FIRST), revision(2, second, "planner")], {}, 1_000_062.0, no_trunc=False)
    assert [(row["Revision"], row["CreatedAt"], row["Author"], row["Changes"]) for row in found] == [
        (2, "About a minute ago", "planner", "image nginx:1 -> nginx:2"),
        (1, "About a minute ago", "root", "created"),
    ]
    (row,) = view.rows([revision(4, second)], {}, 1_000_062.0, no_trunc=True)
    assert row["Changes"] == "(what was before is not kept)"
    assert row["CreatedAt"] == "1970-01-12T13:46:44.000000Z"


def test_a_long_change_is_cut_unless_all_is_wanted() -> None:
    long = retasked(image="registry.example/" + "a" * 100)
    short, full = (
        view.rows([revision(1, FIRST), revision(2, long)], {}, 2e6, no_trunc=no_trunc)[0]["Changes"]
        for no_trunc in (False, True)
    )
    assert len(short) == 72
    assert full.endswith("a" * 100)


def test_a_difference_reads_like_a_unified_diff() -> None:
    new = replace(retasked(image="nginx:2", env=("B=2", "C=3")), replicas=3)
    assert view.unified("web", revision(1, FIRST), revision(3, new, "ann"), {}) == [
        "--- web revision 1 (1970-01-12T13:46:41.000000Z, root)",
        "+++ web revision 3 (1970-01-12T13:46:43.000000Z, ann)",
        "-replicas: 2",
        "+replicas: 3",
        "-container.image: nginx:1",
        "+container.image: nginx:2",
        "-container.env: A=1",
        "+container.env: C=3",
    ]
    assert view.unified("web", revision(1, FIRST), revision(2, FIRST), {}) == []


def test_nothing_that_opens_a_registry_is_shown_nor_what_steers_a_terminal() -> None:
    new = retasked(registry_auth=b"hunter3", env=("A=\x1b[2J",), image="nginx:3")
    text = "\n".join(view.unified("web", revision(1, FIRST), revision(2, new, "a\x1bb"), {}))
    assert "hunter" not in text
    assert "\x1b" not in text


# ---- dependencies from flags


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("db", DependencyCondition.STARTED),
        ("db:started", DependencyCondition.STARTED),
        ("db:healthy", DependencyCondition.HEALTHY),
        ("db:service_healthy", DependencyCondition.HEALTHY),
        ("db:completed", DependencyCondition.COMPLETED),
        ("db:service_completed_successfully", DependencyCondition.COMPLETED),
    ],
)
def test_a_dependency(text: str, condition: DependencyCondition) -> None:
    assert dependency(text) == ServiceDependency(service="db", condition=condition)


@pytest.mark.parametrize("text", ["", ":healthy", "db:", "db:running", "db:a:b"])
def test_no_dependency(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid dependency"):
        dependency(text)


def test_the_last_word_on_a_service_counts() -> None:
    have = (dependency("a"), dependency("b"))
    changed = change_dependencies(have, (dependency("b:healthy"), dependency("c")), ("a",))
    assert changed == (dependency("b:healthy"), dependency("c"))

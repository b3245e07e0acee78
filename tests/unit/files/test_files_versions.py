"""Versions of secrets and configs: who follows, who stays, what is removed, and what a node is given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.errors import FailedPrecondition, InvalidArgument, NotFound
from pyswarm_common.model import (
    Config,
    ContainerSpec,
    FileReference,
    FileSpec,
    Secret,
    Service,
    ServiceSpec,
    Task,
    TaskSpec,
)
from pyswarm_manager.dispatcher.core.needed_files import NeededFiles
from pyswarm_manager.files.versions import following, has_superseded, latest, removal, resolved, rotated, unneeded
from pyswarm_manager.store.apply import Applied, Refusal, apply
from pyswarm_manager.store.changes import Change, ChangeSet, Create, Update, delete
from pyswarm_manager.store.encoding import decode_change_set, decode_snapshot, encode_change_set, encode_snapshot
from pyswarm_manager.store.tables import Kind, Tables


class World:
    """Tables, and change sets that are applied as they would be."""

    def __init__(self) -> None:
        self.tables = Tables()

    def submit(self, *changes: Change) -> Applied:
        data = encode_change_set(ChangeSet(changes, 1.0))
        result = apply(self.tables, self.tables.index + 1, decode_change_set(data))
        if isinstance(result, Refusal):
            raise result.error
        return result

    def secret(self, name: str, data: bytes = b"one") -> Secret:
        self.submit(Create(Secret(id=f"{name}-1", spec=FileSpec(name=name, data=data), number=1)))
        return self.tables.secrets[f"{name}-1"]

    def rotate(self, name: str, data: bytes) -> Secret:
        current = latest(self.tables, Kind.SECRET, name)
        assert isinstance(current, Secret)
        self.submit(*rotated(current, f"{name}-{current.number + 1}", data))
        return self.tables.secrets[f"{name}-{current.number + 1}"]

    def service(self, name: str, *secrets: FileReference) -> Service:
        self.submit(Create(Service(id=name, spec=self.spec(name, *secrets))))
        return self.tables.services[name]

    def spec(self, name: str, *secrets: FileReference) -> ServiceSpec:
        container = ContainerSpec(image="busybox", secrets=secrets)
        return resolved(self.tables, ServiceSpec(name=name, task=TaskSpec(container=container)))

    def follow(self) -> int:
        changes = [Update(service) for service in following(self.tables)]
        if changes:
            self.submit(*changes)
        return len(changes)

    def used(self, service_id: str) -> list[str]:
        return [item.id for item in self.tables.services[service_id].spec.task.container.secrets]


@pytest.fixture
def world() -> World:
    return World()


def test_references_are_resolved_and_filled_in(world: World) -> None:
    world.secret("pw")
    service = world.service(
        "web", FileReference(name="pw"), FileReference(id="pw-1", env="PW"), FileReference(name="pw", target="other")
    )
    first, second, third = service.spec.task.container.secrets
    assert first == FileReference(id="pw-1", name="pw", target="pw", uid="0", gid="0", mode=0o444)
    assert second == FileReference(id="pw-1", name="pw", env="PW")
    assert third.target == "other"
    with pytest.raises(NotFound, match="secret not found: nobody"):
        world.spec("bad", FileReference(name="nobody"))


def test_services_that_follow_go_on_and_pinned_ones_stay(world: World) -> None:
    world.secret("pw")
    world.service("web", FileReference(name="pw"))
    world.service("old", FileReference(name="pw", pinned=True))
    world.rotate("pw", b"two")
    assert [service.id for service in following(world.tables)] == ["web"]
    world.follow()
    assert (world.used("web"), world.used("old")) == (["pw-2"], ["pw-1"])
    assert world.follow() == 0
    assert world.tables.services["web"].revision == 2


def test_what_went_back_is_not_moved_on_again_until_the_next_version(world: World) -> None:
    world.secret("pw")
    before = world.service("web", FileReference(name="pw")).spec
    world.rotate("pw", b"bad")
    world.follow()
    world.submit(Update(replace(world.tables.services["web"], spec=before)))
    assert world.follow() == 0
    assert world.used("web") == ["pw-1"]
    world.rotate("pw", b"good")
    assert world.follow() == 1
    assert world.used("web") == ["pw-3"]


def test_labels_move_nobody(world: World) -> None:
    secret = world.secret("pw")
    world.service("web", FileReference(name="pw"))
    world.submit(Update(replace(secret, spec=replace(secret.spec, labels={"a": "b"}))))
    assert world.follow() == 0
    assert not has_superseded(world.tables)


def test_a_version_goes_when_no_spec_names_it_any_more(world: World) -> None:
    world.secret("pw")
    world.service("web", FileReference(name="pw"))
    world.rotate("pw", b"two")
    assert unneeded(world.tables) == []
    world.follow()
    assert unneeded(world.tables) == []  # the history may go back to it
    world.submit(delete(world.tables.services["web"]))
    gone = unneeded(world.tables)
    assert [change.id for change in gone if not isinstance(change, Update | Create)] == ["pw-1"]  # type: ignore[union-attr]
    world.submit(*gone)
    assert list(world.tables.secrets) == ["pw-2"]


def test_removing_takes_every_version_and_is_refused_while_a_service_names_one(world: World) -> None:
    world.secret("pw")
    world.service("web", FileReference(name="pw"))
    newest = world.rotate("pw", b"two")
    with pytest.raises(InvalidArgument, match=r"^secret 'pw' is in use by the following service: web$"):
        world.submit(*removal(world.tables, Kind.SECRET, newest))
    world.submit(Update(replace(world.tables.services["web"], spec=world.spec("web"))))
    world.submit(*removal(world.tables, Kind.SECRET, newest))
    assert not world.tables.secrets


def test_a_name_is_taken_once_and_only_the_latest_is_rotated(world: World) -> None:
    first = world.secret("pw")
    with pytest.raises(Exception, match="pw"):
        world.submit(Create(Secret(id="other", spec=FileSpec(name="pw", data=b"x"), number=1)))
    world.rotate("pw", b"two")
    with pytest.raises(FailedPrecondition, match="version 1 is not the latest"):
        rotated(world.tables.secrets[first.id], "x", b"three")


def test_a_service_cannot_come_to_name_what_is_not_there(world: World) -> None:
    world.secret("pw")
    spec = world.spec("web", FileReference(name="pw"))
    world.submit(*removal(world.tables, Kind.SECRET, world.tables.secrets["pw-1"]))
    with pytest.raises(NotFound, match="secret pw not found"):
        world.submit(Create(Service(id="web", spec=spec)))


def test_snapshots_keep_them(world: World) -> None:
    world.secret("pw")
    world.rotate("pw", b"\x00\xff")
    world.submit(Create(Config(id="c", spec=FileSpec(name="conf", data=b"data", templating="golang"), number=1)))
    again = decode_snapshot(encode_snapshot(world.tables))
    assert (again.secrets, again.configs) == (world.tables.secrets, world.tables.configs)
    assert again.ids_by_name == world.tables.ids_by_name


# ---- what a node is given


def task(task_id: str, *names: str) -> Task:
    references = tuple(FileReference(id=f"{name}-1", name=name, target=name) for name in names)
    return Task(id=task_id, spec=TaskSpec(container=ContainerSpec(image="busybox", secrets=references)))


def taken(files: NeededFiles, view: Tables) -> tuple[list[str], list[str]]:
    framed, gone = files.take(view)
    message = pb.Assignments.FromString(b"".join(framed))
    return [secret.id for secret in message.update_secrets], gone


def test_a_node_gets_each_once_and_only_while_a_task_needs_it(world: World) -> None:
    world.secret("a")
    world.secret("b")
    files = NeededFiles()
    files.add(task("t1", "a"))
    files.add(task("t2", "a", "b"))
    assert taken(files, world.tables) == (["a-1", "b-1"], [])
    files.remove(task("t2", "a", "b"))
    assert taken(files, world.tables) == ([], ["b-1"])
    files.remove(task("t1", "a"))
    assert taken(files, world.tables) == ([], ["a-1"])


def test_what_is_missing_breaks_nothing(world: World) -> None:
    files = NeededFiles()
    files.add(task("t1", "gone"))
    assert taken(files, world.tables) == ([], [])


@given(st.lists(st.tuples(st.sampled_from("ar"), st.sampled_from("xyz"), st.booleans()), max_size=30))
def test_whatever_comes_and_goes_the_node_has_what_its_tasks_need(steps: list[tuple[str, str, bool]]) -> None:
    world = World()
    needs = {"x": ("a",), "y": ("a", "b"), "z": ("b", "c")}
    for name in "abc":
        world.secret(name)
    files, present, held = NeededFiles(), set[str](), set[str]()
    for action, which, send in steps:
        if action == "a":
            files.add(task(which, *needs[which]))
            present.add(which)
        elif which in present:
            files.remove(task(which, *needs[which]))
            present.discard(which)
        if send:
            more, fewer = taken(files, world.tables)
            assert not set(more) & held
            held = (held | set(more)) - set(fewer)
            assert held == {f"{name}-1" for task_id in present for name in needs[task_id]}

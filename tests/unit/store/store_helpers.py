"""Short ways to write change sets in tests."""

from __future__ import annotations

from pyswarm_common.model import ContainerSpec, Service, ServiceSpec, Task, TaskSpec
from pyswarm_manager.store.apply import Applied, Refusal, apply
from pyswarm_manager.store.changes import Change, ChangeSet, Event
from pyswarm_manager.store.encoding import decode_change_set, encode_change_set
from pyswarm_manager.store.tables import Tables


def submit(tables: Tables, *changes: Change, now: float = 1.0) -> Applied | Refusal:
    """Through bytes, as every member gets it."""
    data = encode_change_set(ChangeSet(changes, now))
    return apply(tables, tables.index + 1, decode_change_set(data))


def commit(tables: Tables, *changes: Change, now: float = 1.0) -> tuple[Event, ...]:
    result = submit(tables, *changes, now=now)
    assert isinstance(result, Applied), result
    return result.events


def refusal(tables: Tables, *changes: Change) -> Exception:
    """The refusal, having checked that nothing has changed."""
    before = tables.copy()
    result = submit(tables, *changes)
    assert isinstance(result, Refusal), result
    before.index = tables.index
    assert tables == before
    return result.error


def service(name: str = "web", **spec: object) -> Service:
    task = spec.pop("task", TaskSpec(container=ContainerSpec(image="nginx", env=("A=1",), labels={"k": "v"})))
    return Service(id=f"id-{name}", spec=ServiceSpec(name=name, task=task, **spec))  # type: ignore[arg-type]


def task(number: int, of: Service, **fields: object) -> Task:
    return Task(
        id=f"task{number}",
        service_id=of.id,
        service_name=of.spec.name,
        slot=number,
        spec=of.spec.task,
        **fields,  # type: ignore[arg-type]
    )

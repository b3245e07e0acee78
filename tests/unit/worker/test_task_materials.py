"""What a task's container is given of secrets, configs and placeholders."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common.errors import InvalidArgument, NotFound, PyswarmError
from pyswarm_common.model import Config, ContainerSpec, FileReference, FileSpec, Mount, Secret, Task, TaskSpec
from pyswarm_worker.core.materials import File, NodeFacts, filled_in, materials_of, needed_ids
from pyswarm_worker.task_files import TaskFiles

NODE = NodeFacts("node-id", "n1", "linux", "amd64")
PASSWORD = Secret(id="s1", spec=FileSpec(name="pw", data=b"hunter2\n"), number=1)
BINARY = Secret(id="s2", spec=FileSpec(name="key", data=b"\xff\x00"), number=1)


def config(text: str) -> Config:
    return Config(id="c1", spec=FileSpec(name="conf", data=text.encode(), templating="golang"), number=1)


def task(*, secrets: tuple[FileReference, ...] = (), configs: tuple[FileReference, ...] = (), **spec: object) -> Task:
    container = ContainerSpec(image="busybox", secrets=secrets, configs=configs, **spec)  # type: ignore[arg-type]
    return Task(
        id="task-id",
        service_id="svc",
        service_name="web",
        slot=3,
        labels={"a": "b"},
        spec=TaskSpec(container=container),
    )


def find(*items: Secret | Config) -> dict[str, Secret | Config]:
    return {item.id: item for item in items}


def test_files_and_variables() -> None:
    references = (
        FileReference(id="s1", name="pw", target="pw", uid="1", gid="2", mode=0o400),
        FileReference(id="s1", name="pw", target="/etc/pw", env="PW"),
    )
    materials = materials_of(task(secrets=references), NODE, find(PASSWORD).get)
    assert materials.files == (
        File("/run/secrets/pw", b"hunter2\n", 1, 2, 0o400),
        File("/etc/pw", b"hunter2\n", 0, 0, 0o444),
    )
    assert materials.env == ("PW=hunter2",)
    assert "hunter2" not in repr(materials)


def test_placeholders_in_configs_with_what_else_is_given() -> None:
    text = '{{.Service.Name}}.{{.Task.Slot}}@{{.Node.Hostname}} {{secret "pw"}}{{env "MODE"}} {{.Service.Labels.a}}'
    given_task = task(
        secrets=(FileReference(id="s1", name="pw", target="pw"),),
        configs=(FileReference(id="c1", name="conf", target="app.conf"),),
        env=("MODE=fast",),
    )
    materials = materials_of(given_task, NODE, find(PASSWORD, config(text)).get)
    assert materials.files[1] == File("/app.conf", b"web.3@n1 hunter2\nfast b", 0, 0, 0o444)


def test_what_is_filled_in_is_not_filled_in_again() -> None:
    sly = Secret(id="s1", spec=FileSpec(name="pw", data=b'{{secret "pw"}}'), number=1)
    given_task = task(
        secrets=(FileReference(id="s1", name="pw", target="pw"),),
        configs=(FileReference(id="c1", name="conf", target="c"),),
    )
    materials = materials_of(given_task, NODE, find(sly, config('<{{secret "pw"}}>')).get)
    assert materials.files[1].data == b'<{{secret "pw"}}>'


@pytest.mark.parametrize(
    ("text", "message"),
    [("{{.Nobody}}", "can't evaluate"), ('{{secret "other"}}', 'given no secret "other"'), ("{{", "never closed")],
)
def test_templates_that_do_not_fit_are_refused_without_quoting_secrets(text: str, message: str) -> None:
    secret = Secret(id="s1", spec=FileSpec(name="pw", data=f"hunter2 {text}".encode(), templating="golang"), number=1)
    with pytest.raises(InvalidArgument, match=message) as refused:
        materials_of(task(secrets=(FileReference(id="s1", name="pw", target="pw"),)), NODE, find(secret).get)
    assert "hunter2" not in str(refused.value)


def test_what_cannot_be_a_variable_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="cannot be in the environment"):
        materials_of(task(secrets=(FileReference(id="s2", name="key", env="KEY"),)), NODE, find(BINARY).get)


def test_what_has_not_come_is_named() -> None:
    wanting = task(secrets=(FileReference(id="s1", name="pw", target="pw"),))
    assert needed_ids(wanting) == ("s1",)
    with pytest.raises(NotFound, match="pw has not come to this node"):
        materials_of(wanting, NODE, find().get)


def test_the_spec_itself_is_filled_in() -> None:
    mount = Mount(source="{{.Service.Name}}-{{.Task.Slot}}", target="/data")
    plain = task(hostname="{{.Node.Hostname}}-{{.Task.Slot}}", env=("ID={{.Task.ID}}", "X=1"), mounts=(mount,))
    container = filled_in(plain, NODE).spec.container
    assert (container.hostname, container.env) == ("n1-3", ("ID=task-id", "X=1"))
    assert container.mounts[0].source == "web-3"
    untouched = task(env=("A=1",))
    assert filled_in(untouched, NODE) is untouched


@given(st.text(max_size=200))
def test_no_text_brings_anything_but_a_refusal(text: str) -> None:
    try:
        materials_of(task(configs=(FileReference(id="c1", name="conf", target="c"),)), NODE, find(config(text)).get)
        filled_in(task(hostname=text), NODE)
    except PyswarmError:
        pass


@pytest.mark.root
async def test_files_are_put_with_their_owners_and_taken_away(tmp_path: Path) -> None:
    """On a disk the directory would become a file system in memory: here it is one already."""
    directory = Path("/dev/shm") / tmp_path.name
    files = TaskFiles(directory, lambda: NODE)
    try:
        files.learn([PASSWORD], [], complete=True)
        reference = FileReference(id="s1", name="pw", target="pw", uid="33", gid="34", mode=0o440, env="PW")
        prepared = await files.prepare(task(secrets=(reference,)))
        (mount,) = prepared.mounts
        about = Path(mount.source).stat()
        assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (33, 34, 0o440)
        assert (mount.target, mount.read_only) == ("/run/secrets/pw", True)
        assert Path(prepared.private_env).read_bytes() == b"PW=hunter2"
        await files.remove("task-id")
        assert list(directory.iterdir()) == []
        await files.prepare(task(secrets=(reference,)))
        await files.sweep({"another"})
        assert list(directory.iterdir()) == []
    finally:
        if directory.exists():
            directory.rmdir()

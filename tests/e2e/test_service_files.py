"""Secrets and configs in services: delivered where they are needed, rolled to, and gone back from."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from e2e_cluster import IMAGE, PYSWARM, Cluster, eventually

from pyswarm_lab import environment

QUICK = ("--update-monitor", "1s", "--update-parallelism", "0")


def told(cluster: Cluster, host: str, *argv: str, data: str) -> str:
    """`pyswarm …` inside a host, with an input; it must succeed."""
    done = subprocess.run(
        [PYSWARM, "lab", "exec", "--name", cluster.name, host, "--", "pyswarm", *argv],
        input=data,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def app(cluster: Cluster) -> Iterator[Cluster]:
    """Two replicas, on workers, with a secret and a config that fills in placeholders."""
    told(cluster, "n2", "secret", "create", "-l", "team=a", "db", "-", data="sesame-1")
    template = '{{.Service.Name}}.{{.Task.Slot}}@{{.Node.Hostname}}:{{secret "db"}}\n'
    told(cluster, "n1", "config", "create", "--template-driver", "golang", "app", "-", data=template)
    files = ("--secret", "db", "--secret", "source=db,env=DB", "--config", "source=app,target=/etc/app,mode=0440")
    placed = ("--constraint", "node.role==worker", "--replicas", "2", "--env", "AT={{.Node.Hostname}}")
    own = ("--hostname", "{{.Service.Name}}-{{.Task.Slot}}", "--mount", "type=volume,src=app-{{.Task.Slot}},dst=/data")
    cluster.run("n1", "service", "create", "--name", "app", *QUICK, *files, *placed, *own, IMAGE)
    yield cluster
    cluster.run("n1", "service", "rm", "app")
    cluster.run("n1", "secret", "rm", "db")
    cluster.run("n1", "config", "rm", "app")


def inside(cluster: Cluster, task: str, script: str) -> str:
    return cluster.run("n3", "task", "exec", task, "sh", "-c", script)


def test_files_variables_and_placeholders_are_there(app: Cluster) -> None:
    for slot in (1, 2):
        script = "cat /run/secrets/db; echo; cat /etc/app; stat -c %a /etc/app; hostname; echo $DB $AT"
        first, config, mode, name, variables = inside(app, f"app.{slot}", script).splitlines()
        at = variables.split()[1]
        assert (first, mode, name, variables) == ("sesame-1", "440", f"app-{slot}", f"sesame-1 {at}")
        volume = f"/var/lib/pyswarm/runtime/volumes/app-{slot}/_data"
        assert app.on(at, "test", "-d", volume).returncode == 0
        assert config == f"app.{slot}@{at}:sesame-1"


def test_managers_and_inspect_show_no_data_of_a_secret(app: Cluster) -> None:
    shown = app.run("n1", "secret", "inspect", "db") + app.run("n1", "service", "inspect", "app")
    assert "sesame" not in shown
    assert app.run("n1", "secret", "ls", "--filter", "label=team=a", "--format", "{{.Name}} {{.Number}}") == "db 1\n"
    assert "{{.Service.Name}}" in app.run("n1", "config", "inspect", "--pretty", "app")


def test_what_is_used_cannot_be_removed(app: Cluster) -> None:
    assert app.refused("n2", "secret", "rm", "db") == (
        "Error response from daemon: secret 'db' is in use by the following service: app"
    )
    assert "secret not found: nobody" in app.refused("n1", "service", "create", "--secret", "nobody", IMAGE)


def test_services_roll_to_the_next_version_and_may_go_back(app: Cluster) -> None:
    told(app, "n3", "secret", "update", "db", "-", data="sesame-2")
    _all_have(app, "sesame-2")
    app.run("n1", "service", "rollback", "app")
    _all_have(app, "sesame-1")
    told(app, "n1", "secret", "update", "db", "-", data="sesame-3")
    _all_have(app, "sesame-3")


def _all_have(app: Cluster, data: str) -> None:
    def have() -> bool:
        ids = list(app.running("app"))
        done = [app.on("n1", "pyswarm", "task", "exec", task_id, "cat", "/run/secrets/db") for task_id in ids]
        return len(ids) == 2 and all(item.stdout == data for item in done)

    eventually(have, f"both tasks have {data}")


def test_a_restart_of_the_daemon_changes_nothing(app: Cluster) -> None:
    """The containers keep their files, and the next task gets its own."""
    before = app.running("app")
    for host in ("n4", "n5"):
        app.cli("lab", "kill", "--name", app.name, host, "pyswarmd")
        app.cli("lab", "start", "--name", app.name, host)
    eventually(lambda: app.nodes().get("n4") and app.running("app") == before, "the tasks run on")
    _all_have(app, "sesame-3")
    app.run("n1", "task", "restart", next(iter(before)))
    eventually(lambda: app.running("app") != before, "one was replaced")
    _all_have(app, "sesame-3")

"""The main job: a service scaled over five hosts, reached from everywhere, outlives a leader and a worker.

The tests are the chapters of one story and run in this order; each leaves the cluster healthy for the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from e2e_cluster import IMAGE, Cluster, eventually

HOSTS = ("n1", "n2", "n3", "n4", "n5")
MANAGERS = HOSTS[:3]


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Iterator[Cluster]:
    """An overlay network and three replicas of a web server on it."""
    cluster.run("n1", "network", "create", "-d", "overlay", "web")
    created = cluster.run(
        "n1", *["service", "create", "--name", "web", "--replicas", "3", "--network", "web", "-p", "8080:80"], IMAGE
    )
    assert "verify: Service web converged" in created
    yield cluster
    for service in cluster.run("n1", "service", "ls", "-q").split():
        cluster.run("n1", "service", "rm", service)


def test_five_nodes_are_ready_and_the_first_leads(cluster: Cluster) -> None:
    nodes = cluster.nodes()
    assert {name: status for name, (status, _) in nodes.items()} == dict.fromkeys(HOSTS, "Ready")
    assert [nodes[name][1] for name in HOSTS] == ["Leader", "Reachable", "Reachable", "", ""]
    own = [line for line in cluster.run("n2", "node", "ls").splitlines() if " * " in line]
    assert len(own) == 1
    assert "n2" in own[0]


def test_replicas_are_spread_over_nodes_that_fetched_the_image_from_the_first(web: Cluster) -> None:
    assert len(set(web.running("web").values())) == 3


def test_scaled_to_five_every_node_has_one(web: Cluster) -> None:
    scaled = web.run("n1", "service", "scale", "web=5")
    assert scaled.startswith("web scaled to 5\n")
    assert "overall progress: 5 out of 5 tasks" in scaled
    assert sorted(web.running("web").values()) == sorted(HOSTS)
    assert "5/5" in web.run("n1", "service", "ls")


@pytest.mark.parametrize("host", HOSTS)
def test_the_published_port_of_every_node_leads_to_every_replica(web: Cluster, host: str) -> None:
    answers = requests(web, web.lab.host(host).address)
    assert len(answers) == 5, answers
    assert "failed" not in answers
    assert len(requests(web, "127.0.0.1", inside=host)) == 5


def requests(cluster: Cluster, address: str, inside: str = "") -> Counter[str]:
    """How often which container answered twenty requests, from the switch or from inside a host."""
    script = f"for i in $(seq 20); do curl -s -m 5 http://{address}:8080/ || echo failed; done"
    argv = ["sh", "-c", script]
    done = cluster.on(inside, *argv) if inside else cluster.lab.outside(argv, timeout_s=120.0)
    return Counter(done.stdout.split())


def test_containers_reach_one_another_by_name_through_vip_and_tasks(web: Cluster) -> None:
    asking = ["service", "create", "-q", "-d", "--name", "ask", "--network", "web", "--constraint", "node.hostname==n5"]
    web.run("n1", *asking, IMAGE, "ask", "web")

    def everyone() -> bool:
        done = web.on("n1", "pyswarm", "service", "logs", "--raw", "ask")
        lines = [line for line in done.stdout.splitlines() if "answered" in line]
        by_vip = {line.split()[-1] for line in lines if line.startswith("name web (VIP 10.")}
        by_task = {line.split()[-1] for line in lines if line.startswith("task of tasks.web 10.")}
        return len(by_vip) == len(by_task) == 5

    eventually(everyone, "all five replicas answered to web and to tasks.web")
    web.run("n1", "service", "rm", "ask")


def test_the_death_of_the_leaders_manager_stops_no_container_and_no_write(web: Cluster) -> None:
    before = web.running("web")
    old = web.leader()
    asked = next(name for name in MANAGERS if name != old)
    web.cli("lab", "kill", "--name", web.name, "--process", "manager", old)
    eventually(lambda: web.leader(asked) not in ("", old), "another manager leads")
    web.run(asked, "service", "scale", "web=6")
    after = web.running("web", asked)
    assert before.items() <= after.items()
    assert len(after) == 6
    eventually(
        lambda: sorted(web.nodes(asked)[name][1] for name in MANAGERS) == ["Leader", "Reachable", "Reachable"],
        "the old leader follows",
    )


def test_what_ran_on_a_lost_worker_runs_elsewhere_and_the_worker_comes_back(web: Cluster) -> None:
    victim = "n4"
    assert victim in web.running("web").values()
    assert web.cli("lab", "kill", "--name", web.name, victim).returncode == 0

    def elsewhere() -> bool:
        nodes = web.running("web").values()
        return len(nodes) == 6 and victim not in nodes

    eventually(elsewhere, "six replicas run without the lost worker")
    assert web.nodes()[victim][0] == "Down"
    assert web.cli("lab", "start", "--name", web.name, victim).returncode == 0
    eventually(lambda: web.nodes()[victim][0] == "Ready", "the worker is Ready again")
    assert victim not in web.running("web").values()


def test_the_service_still_answers_on_every_node(web: Cluster) -> None:
    for host in HOSTS:
        eventually(
            lambda host=host: len(requests(web, web.lab.host(host).address)) == 6, f"six replicas answer on {host}"
        )


def test_a_killed_daemon_takes_its_running_containers_back(web: Cluster) -> None:
    before = web.running("web")
    victim = next(node for node in before.values() if node not in MANAGERS)
    web.cli("lab", "kill", "--name", web.name, "--process", "pyswarmd", victim)
    web.cli("lab", "start", "--name", web.name, victim)
    eventually(lambda: web.on(victim, "pyswarm", "info").returncode == 0, "pyswarmd answers again")
    eventually(lambda: web.nodes()[victim][0] == "Ready", "its node is Ready")
    assert web.running("web") == before


def test_a_worker_behind_a_cut_cable_is_replaced_and_then_gives_up_its_tasks(web: Cluster) -> None:
    victim = next(node for node in web.running("web").values() if node not in MANAGERS)
    web.cli("lab", "cut", "--name", web.name, victim)
    eventually(lambda: len(web.running("web")) == 6 and victim not in web.running("web").values(), "replaced elsewhere")
    web.cli("lab", "heal", "--name", web.name, victim)
    eventually(lambda: web.nodes()[victim][0] == "Ready", "Ready after the cable is back")
    conmons = ["sh", "-c", "ps ax -o args | grep -c '[c]onmon .*web\\.'"]
    eventually(lambda: web.on(victim, *conmons).stdout.strip() == "0", "its old containers are stopped")


def test_removed_services_and_networks_are_gone_from_the_nodes(web: Cluster) -> None:
    web.run("n1", "service", "rm", "web")
    eventually(lambda: web.on("n1", "pyswarm", "network", "rm", "web").returncode == 0, "the network can be removed")
    for host in HOSTS:
        conmons = ["sh", "-c", "ps ax -o args | grep -c '[c]onmon'"]
        eventually(
            lambda host=host, argv=conmons: web.on(host, *argv).stdout.strip() == "0", f"no container is left on {host}"
        )

"""`make demo`: the main job, told as a story. Five hosts, and a web service that survives what we do to them.

Every command is real, and so is its output. Ends with exit code 1 at the first thing that is not as promised, and
removes the lab in any case.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from pyswarm_lab.image import CHANGES, write_rootfs
from pyswarm_lab.lab import Lab
from pyswarm_lab.story import Story, StoryEnded

LAB = "demo"
IMAGE = "web:1"
HOSTS = ("n1", "n2", "n3", "n4", "n5")
_RUNNING = ("pyswarm", "service", "ps", "web", "--no-trunc", "--filter", "desired-state=running")


def main() -> int:
    """Tell the story; 0 when every promise was kept."""
    if os.geteuid() != 0:
        print("The demo makes network namespaces and containers, and so it needs root: sudo make demo", file=sys.stderr)
        return 1
    lab = Lab(LAB)
    story = Story(lab)
    started = time.monotonic()
    failure = ""
    try:
        _opening(story)
        with tempfile.TemporaryDirectory(prefix="pyswarm-demo-") as folder:
            _tell(story, Path(folder))
    except StoryEnded as error:
        failure = str(error)
    except KeyboardInterrupt:
        failure = "interrupted"
    if failure:
        _tell_logs(story)
    left = _closing(story)
    return _summary(story, failure or left, time.monotonic() - started)


def _opening(story: Story) -> None:
    story.say("pyswarm runs your services on a swarm of machines. This demo makes five machines out of namespaces of")
    story.say("this one, forms a swarm on them, runs a web service, breaks things, and cleans up. It changes nothing")
    story.say(f"outside of /var/lib/pyswarm-lab/{LAB}, and takes about a minute.")
    if story.lab.exists():
        story.say("\nAn earlier demo left something behind. That goes first:")
        story.here("lab", "down", "--name", LAB)


def _tell(story: Story, folder: Path) -> None:
    _five_hosts(story)
    _image(story, folder)
    _service(story)
    _scale(story)
    _lose_the_leader(story)
    _lose_a_worker(story)


# ---------------------------------------------------------------- the six steps


def _five_hosts(story: Story) -> None:
    story.chapter("1. Five hosts, one swarm")
    story.here("lab", "up", "--name", LAB, "--managers", "3", "--workers", "2")
    listed = story.on("n1", "pyswarm", "node", "ls")
    story.check("five nodes are Ready", listed.count("Ready") == len(HOSTS))
    story.check("three of them are managers, one leads", listed.count("Reachable") == 2 and listed.count("Leader") == 1)


def _image(story: Story, folder: Path) -> None:
    story.chapter("2. An image, on one node only")
    archive = folder / "rootfs.tar"
    write_rootfs(archive)
    story.say("A root filesystem was made of this machine's busybox: its web server answers with its host's name.")
    changes = [part for change in CHANGES for part in ("--change", change)]
    story.on("n1", "pyswarm", "image", "import", *changes, str(archive), IMAGE)
    story.on("n1", "pyswarm", "images")
    story.say("The other nodes do not have it. They fetch it from n1 when they need it.")


def _service(story: Story) -> None:
    story.chapter("3. A network and a service")
    story.on("n1", "pyswarm", "network", "create", "-d", "overlay", "web")
    story.on(
        "n1",
        *["pyswarm", "service", "create", "--name", "web", "--replicas", "3", "--network", "web", "-p", "8080:80"],
        IMAGE,
    )
    story.on("n1", "pyswarm", "service", "ps", "web")
    tasks = running_tasks(story, "n1")
    story.check("three tasks run, on three different nodes", len(tasks) == 3 and len(set(tasks.values())) == 3)


def _scale(story: Story) -> None:
    story.chapter("4. Five replicas, reached from everywhere")
    story.on("n1", "pyswarm", "service", "scale", "web=5")
    story.on("n1", "pyswarm", "service", "ls")
    story.say("Port 8080 of every node leads to every replica:")
    for record in story.lab.hosts:
        _ask_node(story, record.name, record.address)
    _ask_between_containers(story)


def _ask_node(story: Story, host: str, address: str) -> None:
    """As a client outside of the swarm: from the switch."""
    story.say(f"client$ for i in $(seq 20); do curl -s http://{address}:8080/; done | sort | uniq -c")
    script = f"for i in $(seq 20); do curl -s -m 3 http://{address}:8080/ || echo failed; done"
    answers = Counter(story.lab.outside(["sh", "-c", script], timeout_s=90.0).stdout.split())
    for name, times in sorted(answers.items()):
        story.say(f"  {times:>6} {name}")
    story.check(
        f"{host}: all five replicas answered, and every request was", len(answers) == 5 and "failed" not in answers
    )


def _ask_between_containers(story: Story) -> None:
    story.say("And from container to container, over VXLAN: `ask web` calls the service by its name, which is one")
    story.say("virtual address, and by tasks.web, which is the address of every task.")
    story.on(
        "n1", *["pyswarm", "service", "create", "--quiet", "--name", "ask", "--network", "web"], IMAGE, "ask", "web"
    )

    def heard() -> list[str]:
        lines = story.quietly("n1", "pyswarm", "service", "logs", "--raw", "ask").splitlines()
        by_name = {line.split()[-1] for line in lines if line.startswith("name") and "answered" in line}
        by_task = {line.split()[-1] for line in lines if line.startswith("task") and "answered" in line}
        return lines if len(by_task) == 5 and len(by_name) == 5 else []

    story.until("every replica answered to the name web, and to its address of tasks.web", heard, 60)
    story.on("n1", *["pyswarm", "service", "logs", "--tail", "6", "ask"])
    story.on("n1", "pyswarm", "service", "rm", "ask")


def _lose_the_leader(story: Story) -> None:
    story.chapter("5a. The leader's manager is killed (SIGKILL)")
    before = running_tasks(story, "n1")
    leader = next(host for host in HOSTS if leader_seen_by(story, host) == host)
    story.here("lab", "kill", "--name", LAB, "--process", "manager", leader)
    other = next(host for host in ("n1", "n2", "n3") if host != leader)
    story.until("another manager leads", lambda: leader_seen_by(story, other) not in ("", leader), 30)
    story.on(other, "pyswarm", "service", "scale", "web=6")
    after = running_tasks(story, other)
    story.check(
        "the five containers of before still run, and a sixth does", before.items() <= after.items() and len(after) == 6
    )
    story.until("the old leader's manager is back as a follower", lambda: ready_managers(story, other) == 3, 60)
    story.on(other, "pyswarm", "node", "ls")


def _lose_a_worker(story: Story) -> None:
    story.chapter("5b. A worker loses its power")
    tasks = running_tasks(story, "n1")
    victim = max(("n4", "n5"), key=lambda host: list(tasks.values()).count(host))
    story.here("lab", "kill", "--name", LAB, victim)

    def elsewhere() -> bool:
        now = running_tasks(story, "n1")
        return len(now) == 6 and victim not in now.values()

    story.until(f"what ran on {victim} runs elsewhere, six replicas in all", elsewhere, 60)
    story.on("n1", "pyswarm", "service", "ps", "web")
    story.on("n1", "pyswarm", "node", "ls")
    story.here("lab", "start", "--name", LAB, victim)
    story.until(f"{victim} is Ready again", lambda: node_states(story, "n1").get(victim) == "Ready", 60)
    story.on("n1", "pyswarm", "node", "ls")


# ---------------------------------------------------------------- looking


def running_tasks(story: Story, host: str) -> dict[str, str]:
    """Node by task id, of the tasks of `web` that run."""
    listed = story.quietly(host, *_RUNNING, "--format", "{{.ID}} {{.Node}} {{.CurrentState}}")
    rows = (line.split() for line in listed.splitlines())
    return {row[0]: row[1] for row in rows if row[2] == "Running"}


def leader_seen_by(story: Story, host: str) -> str:
    """The host name of the leader, empty when there is none (or the host cannot say)."""
    listed = story.quietly(host, "pyswarm", "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}")
    return next((line.split()[0] for line in listed.splitlines() if line.endswith(" Leader")), "")


def ready_managers(story: Story, host: str) -> int:
    """How many managers lead or are reachable."""
    listed = story.quietly(host, "pyswarm", "node", "ls", "--format", "{{.ManagerStatus}}").split()
    return listed.count("Leader") + listed.count("Reachable")


def node_states(story: Story, host: str) -> dict[str, str]:
    """Ready, Down, … by host name."""
    listed = story.quietly(host, "pyswarm", "node", "ls", "--format", "{{.Hostname}} {{.Status}}")
    return dict(line.split() for line in listed.splitlines())


# ---------------------------------------------------------------- the end


def _closing(story: Story) -> str:
    """Remove the lab; returns what went wrong."""
    if not story.lab.exists():
        return ""
    story.chapter("6. Nothing stays behind")
    try:
        story.here("lab", "down", "--name", LAB)
        story.check("no process, mount, namespace, cgroup or interface of the lab is left", not story.lab.exists())
    except (StoryEnded, KeyboardInterrupt) as error:
        return str(error) or "interrupted"
    return ""


def _tell_logs(story: Story) -> None:
    """The daemons' last words, before their files go."""
    for record in story.lab.hosts:
        for line in story.lab.log(record.name).splitlines()[-5:]:
            story.say(f"  {record.name} pyswarmd: {line[:300]}")


def _summary(story: Story, failure: str, took_s: float) -> int:
    story.chapter("Summary")
    for fact in story.passed:
        story.say(f"  ✔ {fact}")
    if failure:
        story.say(f"  ✘ {failure}")
        return 1
    story.say(
        f"\nAll of it in {took_s:.0f} s. Your own lab: `pyswarm lab up`, then `pyswarm lab exec n1 -- pyswarm node ls`."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The commands of the planner's transcripts, on a `World`.

`plan` prints what the plan decides; most others change something and print nothing: `node NAME [key=value…]`,
`network NAME`, `service NAME [key=value…]`, `set SERVICE key=value…`, `rm NAME`, `label NODE key=value…`,
`drain NODE [deadline=SECONDS]`, `pause|activate|down|up NODE`, `agents [NODE…]` (one step),
`fail|reject|complete TASK`, `wait SECONDS`, `settle [SECONDS]` (quietly, until nothing moves), `tasks SERVICE`,
`status SERVICE`.
"""

from __future__ import annotations

import shlex
from typing import Any

from planner_world import CORE, GIB, World

from pyswarm_common.model import (
    Availability,
    ContainerSpec,
    EndpointSpec,
    FailureAction,
    NetworkAttachmentSpec,
    NodeRole,
    NodeState,
    Placement,
    PlacementPreference,
    PortConfig,
    PublishMode,
    ResourceRequirements,
    Resources,
    RestartCondition,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskState,
    UpdateConfig,
    UpdateOrder,
)
from pyswarm_manager.store.changes import Change, Create, Delete, SetDesired, SetTaskStatus, Update


class PlannerScript:
    def __init__(self) -> None:
        self.world = World()
        self._options: dict[str, dict[str, str]] = {}

    def run(self, line: str) -> list[str]:
        command, *words = shlex.split(line)
        names = [word for word in words if "=" not in word]
        options = dict(word.split("=", 1) for word in words if "=" in word)
        result = getattr(self, f"do_{command}")(*names, **options)
        return list(result or [])

    # ---- users

    def do_node(self, name: str, cpus: str = "4", memory: str = "8", role: str = "worker", **labels: str) -> None:
        self.world.node(name, role=NodeRole[role.upper()], cpus=int(cpus), memory=int(float(memory) * GIB), **labels)

    def do_network(self, name: str, subnet: str = "", ingress: str = "") -> None:
        self.world.network(name, subnets=(subnet,) if subnet else (), ingress=bool(ingress))

    def do_service(self, name: str, **options: str) -> None:
        self._options[name] = options
        spec = service_spec(name, options)
        self.world.apply(Create(Service(id=name, spec=spec)))

    def do_set(self, name: str, **options: str) -> None:
        self._options[name] |= options
        spec = service_spec(name, self._options[name])
        self.world.respec(name, **{field: getattr(spec, field) for field in spec.__struct_fields__})

    def do_rm(self, name: str) -> None:
        tables = self.world.tables
        self.world.remove(tables.services.get(name) or tables.nodes[name])

    def do_label(self, name: str, **labels: str) -> None:
        self.world.respec_node(name, labels=labels)

    def do_drain(self, name: str, deadline: str = "0") -> None:
        self.world.respec_node(name, availability=Availability.DRAIN, drain_deadline_s=float(deadline))

    def do_pause(self, name: str) -> None:
        self.world.drain(name, Availability.PAUSE)

    def do_activate(self, name: str) -> None:
        self.world.drain(name, Availability.ACTIVE)

    # ---- nodes and agents

    def do_down(self, name: str) -> None:
        self.world.node_state(name, NodeState.DOWN)

    def do_up(self, name: str) -> None:
        self.world.node_state(name, NodeState.READY)

    def do_agents(self, *names: str) -> list[str]:
        self.world.agents_step(only=names or None)
        return []

    def do_fail(self, task_id: str) -> None:
        self.world.report(self.world.tables.tasks[task_id], TaskState.FAILED)

    def do_reject(self, task_id: str) -> None:
        self.world.report(self.world.tables.tasks[task_id], TaskState.REJECTED, "No such image")

    def do_complete(self, task_id: str) -> None:
        self.world.report(self.world.tables.tasks[task_id], TaskState.COMPLETE)

    # ---- the leader

    def do_plan(self) -> list[str]:
        """One plan, as a leader makes it, and then nothing more to do."""
        lines = []
        while True:
            before = dict(self.world.tables.tasks)
            found = self.world.plan()
            lines += [text for change in found.changes for text in describe(change, before, self.world)]
            if not self.world.dirty:
                break
        if self.world.wakes:
            lines.append(f"look again in {min(self.world.wakes.values()) - self.world.now:g} s")
        return lines or ["nothing to do"]

    def do_wait(self, seconds: str) -> None:
        self.world.now += float(seconds)

    def do_settle(self, seconds: str = "0") -> None:
        self.world.settle(float(seconds))

    # ---- looking

    def do_tasks(self, name: str) -> list[str]:
        return [show(task, self.world) for task in self.world.tasks(name, wanted=False)]

    def do_status(self, name: str) -> list[str]:
        status = self.world.tables.services[name].update_status
        return ["no update" if status is None else f"{status.state.name}: {status.message}"]


def service_spec(name: str, options: dict[str, str]) -> ServiceSpec:
    return ServiceSpec(
        name=name,
        mode=ServiceMode[options.get("mode", "replicated").upper()],
        replicas=int(options.get("replicas", "1")),
        task=task_spec(options),
        update=update_config(options),
        endpoint=EndpointSpec(ports=tuple(port(text) for text in listed(options, "ports"))),
    )


def task_spec(options: dict[str, str]) -> TaskSpec:
    return TaskSpec(
        container=ContainerSpec(image=options.get("image", "img:1")),
        resources=ResourceRequirements(
            reservations=Resources(
                nano_cpus=int(float(options.get("cpus", "0")) * CORE),
                memory_bytes=int(float(options.get("memory", "0")) * GIB),
            )
        ),
        restart=RestartPolicy(
            condition=RestartCondition[options.get("restart", "any").upper().replace("-", "_")],
            delay_s=float(options["restart-delay"]) if "restart-delay" in options else None,
            max_attempts=int(options.get("attempts", "0")),
        ),
        placement=Placement(
            constraints=listed(options, "constraint"),
            preferences=tuple(PlacementPreference(spread_descriptor=text) for text in listed(options, "spread")),
            max_replicas_per_node=int(options.get("per-node", "0")),
        ),
        networks=tuple(NetworkAttachmentSpec(target=target) for target in listed(options, "networks")),
    )


def update_config(options: dict[str, str]) -> UpdateConfig:
    return UpdateConfig(
        parallelism=int(options.get("parallelism", "1")),
        delay_s=float(options.get("delay", "0")),
        failure_action=FailureAction[options.get("on-failure", "pause").upper()],
        monitor_s=float(options.get("monitor", "5")),
        max_failure_ratio=float(options.get("ratio", "0")),
        order=UpdateOrder[options.get("order", "stop-first").upper().replace("-", "_")],
    )


def listed(options: dict[str, str], key: str) -> tuple[str, ...]:
    return tuple(options[key].split(",")) if options.get(key) else ()


def port(text: str) -> PortConfig:
    """8080:80 or 8080:80/host."""
    numbers, _, mode = text.partition("/")
    published, target = numbers.split(":")
    return PortConfig(
        target_port=int(target), published_port=int(published), publish_mode=PublishMode[(mode or "ingress").upper()]
    )


def describe(change: Change, before: dict[str, Task], world: World) -> list[str]:
    match change:
        case Create(Task() as task):
            return [f"create {show(task, world)}"]
        case Update(Task() as task):
            return [f"place {show(task, world)}"]
        case SetTaskStatus(task_id, status):
            return [f"{label(before[task_id])} {status.state.name}: {status.message}"]
        case SetDesired(task_id, desired):
            return [f"{label(before[task_id])} should be {desired.name}"]
        case Delete(_, task_id):
            return [f"forget {label(before[task_id])}"]
        case Update(Service() as service):
            return [f"service {service.id}: {about(service)}"]
        case Create(item) | Update(item):
            return [f"{type(item).__name__.lower()} {item.id}: {about(item)}"]
    return [str(change)]


def about(item: Any) -> str:
    if isinstance(item, Service):
        parts = [f"vip {vip.address} on {vip.network_id}" for vip in item.endpoint.vips]
        parts += [f"port {config.published_port}->{config.target_port}" for config in item.endpoint.ports]
        if item.update_status is not None:
            parts.append(item.update_status.message)
        return ", ".join(parts)
    return ", ".join(
        [f"vni {item.vni}", *item.subnets] if hasattr(item, "vni") else [f"ingress {', '.join(item.ingress_addresses)}"]
    )


def label(task: Task) -> str:
    return f"{task.name} {task.id}"


def show(task: Task, world: World) -> str:
    parts = [label(task), f"on {task.node_id or '-'}", task.status.state.name, f"wanted {task.desired_state.name}"]
    parts.append(task.spec.container.image)
    parts += [address for attachment in task.networks for address in attachment.addresses]
    if task.start_at > world.now:
        parts.append(f"starts in {task.start_at - world.now:g} s")
    if task.status.state < TaskState.ASSIGNED:
        parts.append(f"({task.status.message})")
    return " ".join(parts)

"""What befalls the cluster: each fault comes at random times, and ends by itself or when everything is healed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pyswarm.v1 import control_pb2
from pyswarm_common.model import Availability, Node, NodeRole
from pyswarm_manager.managers.quorum import is_heard
from pyswarm_manager.raft.core.state import RaftState
from pyswarm_manager.raft.core.types import MemberRole, Role
from pyswarm_simulator.cluster import SimCluster
from pyswarm_simulator.host import Host
from pyswarm_simulator.machine import MachineWeather
from pyswarm_simulator.manager import ManagerProcess
from pyswarm_simulator.workload import Workload
from pyswarm_simulator.world import ProcessLoop

MAX_HOSTS = 7


_WATCH_S = 0.001
"""Less than a message takes."""


def term_led_by(manager: ManagerProcess) -> int:
    """The term in which it leads, if only in its own view; 0 if it does not."""
    if manager.raft is None:
        return 0
    state = manager.raft._loop.core.state
    return state.term if state.role is Role.LEADER else 0


def _shared_by_majority(state: RaftState) -> int:
    """Up to where a majority's logs are known to agree with the leader's."""
    found = sorted((p.match for p in state.progress.values()), reverse=True)
    return found[state.quorum() - 2] if len(found) >= state.quorum() - 1 > 0 else 0


class Faults:
    """Begins with `start`, ends with `heal`."""

    def __init__(self, cluster: SimCluster, workload: Workload) -> None:
        self._cluster, self._workload = cluster, workload
        self._world, self._profile = cluster.world, cluster.profile
        self._is_on = False
        self._bereft: Host | None = None

    def start(self) -> None:
        """Bad weather from now on."""
        profile = self._profile
        self._is_on = True
        weather = self._cluster.network.weather
        weather.drop, weather.duplicate, weather.slow = profile.drop, profile.duplicate, profile.slow
        for host in self._cluster.hosts.values():
            host.weather.disk.slow = profile.slow_disk
            host.weather.machine.pull_s = profile.slow_pull_s
        for action, every in (
            (self._kill, profile.kill_every),
            (self._power_off, profile.power_off_every),
            (self._freeze, profile.freeze_every),
            (self._jump_clock, profile.clock_jump_every),
            (self._cut, profile.cut_every),
            (self._fill_disk, profile.full_disk_every),
            (self._lose_log, profile.lose_log_every),
            (self._crash_container, profile.crash_container_every),
            (self._transfer, profile.transfer_every),
            (self._churn, profile.churn_every),
            (self._false_alarm, profile.cut_every),
        ):
            self._repeat(action, every)
        if profile.topple:
            self._watch_elections(0)

    def heal(self) -> None:
        """Good weather from now on: everything is up and reachable, and every clock is right."""
        self._is_on = False
        cluster = self._cluster
        cluster.note("heal everything")
        cluster.network.heal()
        weather = cluster.network.weather
        weather.drop = weather.duplicate = weather.slow = 0.0
        for host in cluster.hosts.values():
            host.weather.disk.slow, host.weather.disk.is_full = 0.0, False
            host.weather.machine.pull_s = MachineWeather().pull_s
            host.weather.wall_skew_s = 0.0
            for loop in host.loops:
                if loop.is_frozen:
                    loop.thaw()
            self._start_all(host)

    def _start_all(self, host: Host) -> None:
        if not host.is_up:
            self._power_on(host)
            return
        if host.has_joined and (host.agent_loop is None or not host.agent_loop.is_alive):
            host.start_agent()
        self._cluster.restart_manager(host)

    def _repeat(self, action: Callable[[], None], every: float) -> None:
        if every > 1e6:
            return

        def again() -> None:
            if self._is_on:
                action()
                self._world.after_s(self._world.rng.expovariate(1 / every), again)

        self._world.after_s(self._world.rng.expovariate(1 / every), again)

    def _pick(self, of: Callable[[Host], bool] = lambda host: True) -> Host | None:
        hosts = [host for host in self._cluster.hosts.values() if host.is_up and of(host)]
        return self._world.rng.choice(hosts) if hosts else None

    def _later(self, mean_s: float, action: Callable[[], None]) -> None:
        """The end of a fault, unless everything was healed before."""
        self._world.after_s(self._world.rng.expovariate(1 / mean_s), lambda: action() if self._is_on else None)

    # -- processes and hosts -------------------------------------------------------------------------------------------

    def _kill(self) -> None:
        """A process is killed; its daemon starts it again."""
        leader = self._cluster.leader()
        is_leader = leader is not None and self._world.chance(0.4)
        host = self._cluster.hosts[leader.host] if is_leader and leader is not None else self._pick()
        if host is None:
            return
        if host.manager is not None and host.manager.loop.is_alive and (is_leader or self._world.chance(0.5)):
            patience_s = 0.1 if self._world.chance(0.5) else 0.0
            self._kill_manager(host, host.manager, self._world.now + patience_s)
        elif host.agent_loop is not None and host.agent_loop.is_alive:
            self._cluster.note(f"kill agent {host.name}")
            host.kill_agent()
            if self._world.chance(self._profile.daemon_kill):
                host.kill_manager()
                self._tell_lost(host)
                self._later(0.7, lambda: self._restart_daemon(host))
            else:
                self._later(0.7, lambda: self._restart_agent(host))

    def _kill_manager(self, host: Host, manager: ManagerProcess, deadline: float) -> None:
        """As soon as it writes to its disk, or when the deadline has come."""
        if not (self._is_on and manager.loop.is_alive):
            return
        if not manager.is_writing and self._world.now < deadline:
            self._world.after_s(_WATCH_S / 4, lambda: self._kill_manager(host, manager, deadline))
            return
        self._cluster.note(f"kill manager {host.name}")
        host.kill_manager()
        self._tell_lost(host)
        self._later(0.7, lambda: self._cluster.restart_manager(host))

    def _watch_elections(self, known_term: int) -> None:
        """Some leaders reach few others from the moment they are elected, and are killed soon after."""
        if not self._is_on:
            return
        leader = next((m for m in self._cluster.managers() if term_led_by(m) > known_term), None)
        if leader is not None:
            known_term = term_led_by(leader)
            if self._world.chance(self._profile.topple):
                self._undermine(self._cluster.hosts[leader.host])
        self._world.after_s(_WATCH_S, lambda: self._watch_elections(known_term))

    def _undermine(self, host: Host) -> None:
        manager = host.manager
        if manager is None or manager.raft is None:
            return
        state, network = manager.raft._loop.core.state, self._cluster.network
        network.heal()
        if state.log.committed < state.term_start_index - 1 and self._world.chance(0.7):
            self._cluster.note(f"watch {host.name}, which inherited what is not committed")
            self._topple_when_inherited(host, self._world.now + 0.06)
            return
        reach = self._world.rng.choice((0.0, 0.3))
        lost = [name for name in self._cluster.hosts if name != host.name and not self._world.chance(reach)]
        for name in lost:
            network.cut(host.name, name)
        self._cluster.note(f"undermine {host.name}: cut from {' '.join(lost)}")
        self._world.after_s(self._world.rng.uniform(0.005, 0.06), lambda: self._topple(host))

    def _topple_when_inherited(self, host: Host, deadline: float) -> None:
        """Kill a leader at the worst moment: what it inherited is on a majority, and nothing of its own term is."""
        manager = host.manager
        if manager is None or manager.raft is None or not manager.loop.is_alive:
            return
        state = manager.raft._loop.core.state
        is_worst = state.role is Role.LEADER and _shared_by_majority(state) == state.term_start_index - 1
        if is_worst or self._world.now > deadline:
            self._topple(host)
        else:
            self._world.after_s(_WATCH_S / 4, lambda: self._topple_when_inherited(host, deadline))

    def _topple(self, host: Host) -> None:
        if not (self._is_on and host.is_up and host.manager is not None and host.manager.loop.is_alive):
            return
        self._cluster.note(f"topple {host.name}")
        host.kill_manager()
        self._cluster.network.heal()
        self._later(0.5, lambda: self._cluster.restart_manager(host))

    def _restart_agent(self, host: Host) -> None:
        if host.is_up and host.agent_loop is not None and not host.agent_loop.is_alive:
            host.start_agent()

    def _restart_daemon(self, host: Host) -> None:
        if host.is_up and not host.loops:
            host.start_daemon()
        else:
            self._restart_agent(host)

    def _tell_lost(self, host: Host) -> None:
        """Most of the others notice at once that it refuses connections."""
        for other in self._cluster.managers():
            peer = other.transport.reaches(host.manager_address)
            if peer is not None and self._world.chance(0.7):
                self._world.after_s(self._world.rng.uniform(0.001, 0.05), partial(other.transport.report_lost, peer))

    def _power_off(self) -> None:
        """One host, or all of them at once."""
        victims = [self._pick()]
        if self._world.chance(0.1):
            victims = [host for host in self._cluster.hosts.values() if host.is_up]
        for host in victims:
            if host is not None:
                self._cluster.note(f"power off {host.name}")
                host.power_off()
                self._later(2.0, partial(self._power_on, host))

    def _power_on(self, host: Host) -> None:
        if not host.is_up and not host.is_scrapped:
            self._cluster.note(f"power on {host.name}")
            host.power_on()

    def _freeze(self) -> None:
        """A process stands still for a while."""
        host = self._pick(lambda host: bool(host.loops))
        if host is None:
            return
        loop = self._world.rng.choice(host.loops)
        if not loop.is_frozen:
            self._cluster.note(f"freeze {loop.name}")
            loop.freeze()
            self._later(1.5, lambda: self._thaw(loop))

    def _thaw(self, loop: ProcessLoop) -> None:
        if loop.is_frozen and loop.is_alive:
            self._cluster.note(f"thaw {loop.name}")
            loop.thaw()

    def _jump_clock(self) -> None:
        """A host's calendar is set, forward or back."""
        host = self._pick()
        if host is not None:
            host.weather.wall_skew_s = self._world.rng.choice((-3600.0, -5.0, 0.0, 2.0, 30.0, 3600.0))
            self._cluster.note(f"clock of {host.name} is off by {host.weather.wall_skew_s} s")

    # -- network, disk, containers -------------------------------------------------------------------------------------

    def _cut(self) -> None:
        """Cut some directions, or heal them all."""
        network, rng = self._cluster.network, self._world.rng
        network.heal()
        if self._world.chance(0.35):
            self._cluster.note("cuts healed")
            return
        names = list(self._cluster.hosts)
        if self._world.chance(0.5):
            side = rng.sample(names, rng.randrange(1, len(names)))
            pairs = [(a, b) for a in names for b in names if (a in side) != (b in side)]
        else:
            pairs = [(a, b) for a in names for b in names if a != b and rng.random() < 0.25]
        for pair in pairs:
            network.cut(*pair)
        self._cluster.note("cut " + " ".join(f"{a}>{b}" for a, b in pairs))
        if self._world.chance(0.3):
            self._refuse(pairs)

    def _refuse(self, pairs: list[tuple[str, str]]) -> None:
        """Some firewalls do not drop what they stop: they answer with a refusal, as a dead process's machine does."""
        for one in self._cluster.managers():
            for other in self._cluster.managers():
                peer = one.transport.reaches(other.address)
                if peer is not None and (one.host, other.host) in pairs:
                    one.transport.report_lost(peer)

    def _false_alarm(self) -> None:
        """A manager believes that another's connection was refused."""
        managers = self._cluster.managers()
        if len(managers) > 1:
            one, other = self._world.rng.sample(managers, 2)
            peer = one.transport.reaches(other.address)
            if peer is not None:
                one.transport.report_lost(peer)

    def _fill_disk(self) -> None:
        host = self._pick(lambda host: host.raft_disk is not None)
        if host is not None:
            self._cluster.note(f"disk of {host.name} is full")
            host.weather.disk.is_full = True
            self._later(2.0, lambda: self._empty_disk(host))

    def _empty_disk(self, host: Host) -> None:
        self._cluster.note(f"disk of {host.name} has room")
        host.weather.disk.is_full = False

    def _lose_log(self) -> None:
        """A manager's log is gone. Never two at once, nor while another is away or comes or goes: what only they have
        would be lost for good, and no cluster promises more."""
        if self._is_log_missed() or not self._are_managers_settled():
            return
        host = self._pick(lambda host: host.is_manager_set_up and host.manager is not None)
        if host is not None:
            self._cluster.note(f"{host.name} loses its log")
            host.lose_log()
            self._bereft = host
            self._later(1.0, lambda: self._cluster.restart_manager(host))

    def _is_log_missed(self) -> bool:
        """Whether the last one that lost its log is still to become a member again."""
        if self._bereft is not None and (not self._bereft.is_manager_set_up or self._votes(self._bereft)):
            self._bereft = None
        return self._bereft is not None

    def _votes(self, host: Host) -> bool:
        leader = self._cluster.leader()
        member = leader.raft.members.get(host.raft_id) if leader is not None and leader.raft is not None else None
        return member is not None and member.role is MemberRole.VOTER

    def _are_managers_settled(self) -> bool:
        leader = self._cluster.leader()
        if leader is None or leader.raft is None:
            return False
        nodes = [n for n in self._cluster.stores.content.nodes.values() if n.role is not n.spec.role]
        members = leader.raft.members
        claimed = {host.raft_id for host in self._cluster.hosts.values() if host.is_up and host.is_manager_set_up}
        voters = [member for member in members.values() if member.role is MemberRole.VOTER and is_heard(member)]
        return not nodes and claimed == set(members) and len(voters) == len(members) >= 3

    def _crash_container(self) -> None:
        host = self._pick(lambda host: bool(host.runtime.running()))
        if host is not None:
            state = self._world.rng.choice(host.runtime.running())
            self._cluster.note(f"container {state.id} crashes")
            host.runtime.exit(state.id, self._world.rng.choice((0, 1, 137)))

    # -- the managers' group -------------------------------------------------------------------------------------------

    def _transfer(self) -> None:
        self._cluster.note("transfer leadership")
        self._workload.ask("Transfer", None, 1.0)

    def _churn(self) -> None:
        """Promote a worker, demote a manager, let a machine join, or remove one."""
        nodes = self._cluster.stores.content.nodes
        managers = [n for n in nodes.values() if n.spec.role is NodeRole.MANAGER]
        workers = [n for n in nodes.values() if n.spec.role is NodeRole.WORKER]
        choice = self._world.rng.random()
        if self._is_log_missed():
            return  # who demotes another one now asks for a cluster that cannot decide anything any more
        if choice < 0.25 and len(self._cluster.hosts) < MAX_HOSTS:
            self.join()
        elif choice > 0.85 and len(workers) > 1:
            self._remove(self._world.rng.choice(workers))
        elif choice < 0.6 and len(managers) > 2:
            node = self._world.rng.choice(managers)
            self._cluster.note(f"demote {node.description.hostname}")
            self._workload.spawn_update_node(node.id, NodeRole.WORKER, node.spec.availability)
        elif workers and len(managers) < 5:
            node = self._world.rng.choice(workers)
            self._cluster.note(f"promote {node.description.hostname}")
            self._workload.spawn_update_node(node.id, NodeRole.MANAGER, Availability.ACTIVE)

    def _remove(self, node: Node) -> None:
        """`node rm --force`, while its machine runs on or after its power was cut for good."""
        host = self._cluster.hosts[node.description.hostname]
        if host.raft_disk is not None or host.number == 1 or host.agent_loop is None:
            return  # the first host has the only copies of some images, and who still joins would ask to be added anew
        self._cluster.note(f"remove {host.name}")
        if self._world.chance(0.5) and host.is_up:
            host.power_off()
            host.is_scrapped = True
        request = control_pb2.RemoveNodeRequest(node=node.id, force=True)
        asked = self._workload.ask("RemoveNode", request.SerializeToString())
        asked.add_done_callback(lambda done: self._not_removed(host) if isinstance(done.result(), Exception) else None)

    def _not_removed(self, host: Host) -> None:
        """It is still a node of the cluster, so somebody will see to its power."""
        host.is_scrapped = False
        if not self._is_on and not host.is_up:
            host.power_on()

    def join(self) -> None:
        """A machine that was not there before becomes a worker."""
        host = self._cluster.add_host()
        self._cluster.note(f"{host.name} joins")
        host.known_managers = tuple(self._workload.addresses())
        asked = self._workload.ask("AddNode", self._cluster.node_of(host, NodeRole.WORKER), 30.0)
        asked.add_done_callback(lambda _: host.joined())

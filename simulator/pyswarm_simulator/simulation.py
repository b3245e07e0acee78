"""One run: a cluster is made, things are asked of it and befall it, then it is healed and must be well.

Phase 1 is checked after every event; phase 2 gives the cluster time to come to what it must be. The outcome names the
seed, what was violated, and has one line per event.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

from pyswarm_common.model import NodeRole
from pyswarm_simulator.checks.convergence import what_is_missing
from pyswarm_simulator.checks.violation import Violation
from pyswarm_simulator.cluster import FIRST_IMAGES, SimCluster
from pyswarm_simulator.daemon import Daemon
from pyswarm_simulator.faults import Faults
from pyswarm_simulator.host import Host
from pyswarm_simulator.linearizability import TooManyConfigurations, check
from pyswarm_simulator.profile import Profile, profile_of
from pyswarm_simulator.workload import IMAGES, Workload
from pyswarm_simulator.world import NeverRests, SimTask, World

FORMING_S = 5.0
"""Until then the first managers and workers have joined, and nothing befalls them."""
DAEMON_S = 0.5
LOOK_S = 1.0

Mutant = Callable[[], AbstractContextManager[object]]
"""Plants a bug for as long as the context lasts."""
Story = Callable[[SimCluster, Workload], Iterator[float]]
"""What befalls the cluster instead of chance; yields for how many seconds it goes on by itself."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run."""

    seed: int
    profile: str
    violation: str = ""
    trace: tuple[str, ...] = field(default=(), repr=False)
    virtual_s: float = 0.0
    callbacks: int = 0
    operations: int = 0
    commits: int = 0

    @property
    def ok(self) -> bool:
        return not self.violation

    @property
    def fingerprint(self) -> str:
        """The same for every run of the same seed."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


def run(seed: int, profile: Profile | None = None, mutant: Mutant | None = None, story: Story | None = None) -> Outcome:
    """Run one seed, with a bug planted or without, or a story."""
    with mutant() if mutant is not None else nullcontext():
        gc.freeze()  # what is there stays; what this run makes is looked at when it ends
        gc.disable()  # it would run destructors of what we stopped at moments of its own
        try:
            return _Simulation(seed, profile or profile_of(seed), story).outcome()
        finally:
            _collect_quietly()


def _collect_quietly() -> None:
    """The coroutines of killed processes complain when they go; nobody is to hear it."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            gc.enable()
            while gc.collect():
                pass  # destructors of the first round leave more, which would stay frozen in every run after this one
            gc.unfreeze()
    finally:
        sys.unraisablehook = hook


class _Simulation:
    """One seed's run."""

    def __init__(self, seed: int, profile: Profile, story: Story | None) -> None:
        SimTask.count_anew()
        self._seed, self._profile, self._story = seed, profile, story
        self._world = World(seed)
        self._cluster = SimCluster(self._world, profile)
        self._workload = Workload(self._cluster)
        self._faults = Faults(self._cluster, self._workload)
        self._daemons: dict[str, Daemon] = {}

    def outcome(self) -> Outcome:
        """Run, and say what became of it."""
        violation = ""
        try:
            self._run()
        except (Violation, NeverRests, TooManyConfigurations) as found:
            violation = str(found) or repr(found)
        except AssertionError as found:
            violation = f"an assertion failed: {found!r}"
        finally:
            self._end()
        return Outcome(
            self._seed,
            self._profile.name,
            violation,
            tuple(self._cluster.trace),
            self._world.now,
            self._world.callbacks,
            len(self._workload.history),
            self._cluster.stores.applied_to,
        )

    def _run(self) -> None:
        self._form()
        self._befall()
        self._workload.stop()
        self._faults.heal()
        self._settle()
        verdict = check(self._workload.history)
        if not verdict.ok:
            raise Violation("linearizability: " + verdict.explain())

    def _befall(self) -> None:
        if self._story is None:
            self._faults.start()
            self._world.run_until(FORMING_S + self._profile.fault_s)
            return
        for pause_s in self._story(self._cluster, self._workload):
            self._world.run_until(self._world.now + pause_s)

    def _end(self) -> None:
        """Nothing runs any more."""
        cluster = self._cluster
        cluster.is_over = True
        for host in cluster.hosts.values():
            for loop in host.loops:
                loop.kill()
        self._workload.kill()

    # -- the beginning -------------------------------------------------------------------------------------------------

    def _form(self) -> None:
        cluster, profile = self._cluster, self._profile
        hosts = [
            cluster.add_host(IMAGES if n == 0 else FIRST_IMAGES) for n in range(profile.managers + profile.workers)
        ]
        first, others = hosts[0], hosts[1:]
        first.prepare_manager()
        first.certificate = NodeRole.MANAGER
        first.bootstrap = cluster.bootstrap_of(first)
        first.start_manager()
        for host in hosts:
            host.known_managers = tuple(h.manager_address for h in hosts[: profile.managers])
        first.joined()
        for number, host in enumerate(others, 1):
            self._world.after_s(1.0 + 0.2 * number, partial(self._join, host, number < profile.managers))
        self._world.after_s(DAEMON_S, self._look_after_managers)
        self._world.run_until(2.5)
        self._workload.start()
        self._world.run_until(FORMING_S)

    def _join(self, host: Host, is_manager: bool) -> None:
        role = host.certificate = NodeRole.MANAGER if is_manager else NodeRole.WORKER
        asked = self._workload.ask("AddNode", self._cluster.node_of(host, role), 30.0)
        asked.add_done_callback(lambda _: host.joined())

    def _look_after_managers(self) -> None:
        """Each host's daemon looks at what its node is to be."""
        if self._cluster.is_over:
            return
        for host in list(self._cluster.hosts.values()):
            daemon = self._daemons.get(host.name)
            if daemon is None:
                daemon = self._daemons[host.name] = Daemon(host, self._renew)
            daemon.look()
        self._world.after_s(DAEMON_S, self._look_after_managers)

    def _renew(self, node_id: str) -> asyncio.Task[object]:
        return self._workload.ask("RenewRole", node_id)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Until everything is as it must be, and stays so."""
        deadline = self._world.now + self._profile.heal_s
        missing = "nothing was looked at"
        while self._world.now < deadline:
            self._world.run_until(self._world.now + LOOK_S)
            missing = what_is_missing(self._cluster)
            if not missing:
                self._world.run_until(self._world.now + LOOK_S)
                missing = what_is_missing(self._cluster)
                if not missing:
                    return
        raise Violation(f"no convergence within {self._profile.heal_s:g} s: {missing}")

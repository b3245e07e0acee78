"""What a run is made of: how many hosts, how bad the weather, what is asked of the cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace

NEVER = 1e9


@dataclass(frozen=True, slots=True)
class Profile:
    """Probabilities are per message or write; `…_every` are seconds of virtual time between two, on average."""

    name: str = "mixed"
    managers: int = 3
    workers: int = 2
    fault_s: float = 12.0
    """How long the bad weather lasts."""
    heal_s: float = 120.0
    """By then everything must be as it should be."""
    # -- the network
    drop: float = 0.03
    duplicate: float = 0.02
    slow: float = 0.03
    cut_every: float = 3.0
    # -- processes and hosts
    kill_every: float = 3.0
    daemon_kill: float = 0.0
    """How likely a daemon that is killed takes its manager along, as the real one does."""
    power_off_every: float = 8.0
    freeze_every: float = 6.0
    topple: float = 0.0
    """How likely a leader is killed moments after its election (figure 8 of the Raft paper needs that)."""
    clock_jump_every: float = 10.0
    # -- disks and containers
    slow_disk: float = 0.05
    slow_pull_s: float = 3.0
    """An image that is not on a host takes up to so long to come."""
    full_disk_every: float = NEVER
    lose_log_every: float = NEVER
    """A manager's log is gone or damaged, while all others are well."""
    crash_container_every: float = 4.0
    # -- the managers' group
    transfer_every: float = 8.0
    churn_every: float = 8.0
    """A node is promoted or demoted, joins, or is removed."""
    # -- the workload
    services: int = 4
    jobs: int = 0
    """Jobs and cron services, beside the services."""
    rollouts: int = 0
    """Services that are rolled back, stopped, started and restarted all the time, beside the others."""
    orchestration: int = 0
    """Services with finer wishes (autoscaling, secrets, priorities, devices, balance), beside the others."""
    orchestration_kinds: str = "afpgb"
    """Which of them: autoscaled, following secrets, of priorities, with devices, balanced."""
    networks: int = 0
    """That come and go, with services and plain containers on them, beside the others."""
    network_services: int = 5
    change_every: float = 1.2
    """A service is created, scaled, updated or removed; a node is drained or made active."""
    registers: int = 2
    register_every: float = 0.15
    snapshot_entries: int = 60
    """Small, so that snapshots happen."""


MIXED = Profile()
JOBS = "jobs"
ROLLOUTS = "rollouts"
ORCHESTRATION = "orchestration"
SCALING = "scaling"
NETWORKS = "networks"
_ASKED_FOR = ("calm", JOBS, ROLLOUTS, ORCHESTRATION, SCALING, NETWORKS)
"""Profiles that no seed has unless they are asked for by name: so the seeds of the others keep their profile."""
PROFILES = {
    profile.name: profile
    for profile in (
        MIXED,
        replace(
            MIXED,
            name="calm",
            drop=0,
            duplicate=0,
            slow=0,
            cut_every=NEVER,
            kill_every=NEVER,
            power_off_every=NEVER,
            freeze_every=NEVER,
            clock_jump_every=NEVER,
            slow_disk=0,
            crash_container_every=NEVER,
            transfer_every=NEVER,
            churn_every=NEVER,
        ),
        replace(
            MIXED,
            name="storm",
            drop=0.12,
            duplicate=0.08,
            slow=0.12,
            cut_every=1.2,
            kill_every=1.2,
            power_off_every=4.0,
            freeze_every=3.0,
        ),
        replace(
            MIXED,
            name="partitions",
            drop=0,
            duplicate=0,
            slow=0,
            cut_every=1.0,
            kill_every=15.0,
            power_off_every=NEVER,
            register_every=0.05,
            change_every=3.0,
        ),
        replace(MIXED, name="members", drop=0.01, cut_every=2.0, churn_every=1.5, transfer_every=3.0, kill_every=4.0),
        replace(MIXED, name="power", kill_every=6.0, power_off_every=1.5, cut_every=NEVER, slow_disk=0.3),
        replace(
            MIXED,
            name="reads",
            workers=0,
            drop=0,
            duplicate=0,
            slow=0.01,
            cut_every=0.8,
            kill_every=6.0,
            power_off_every=NEVER,
            freeze_every=0.6,
            change_every=5.0,
            registers=1,
            register_every=0.012,
            snapshot_entries=400,
        ),
        replace(
            MIXED,
            name="topple",
            managers=5,
            workers=0,
            drop=0.02,
            cut_every=NEVER,
            kill_every=NEVER,
            freeze_every=NEVER,
            power_off_every=NEVER,
            transfer_every=NEVER,
            churn_every=NEVER,
            topple=0.9,
            register_every=0.015,
            change_every=2.0,
            snapshot_entries=300,
        ),
        replace(MIXED, name="disks", slow_disk=0.3, full_disk_every=3.0, cut_every=8.0),
        replace(
            MIXED,
            name="workers",
            managers=1,
            workers=4,
            kill_every=1.5,
            crash_container_every=1.0,
            change_every=0.5,
            cut_every=2.0,
            transfer_every=NEVER,
        ),
        replace(MIXED, name=JOBS, services=1, jobs=4, change_every=0.6, kill_every=1.5, transfer_every=3.0),
        replace(
            MIXED,
            name=ORCHESTRATION,
            services=0,
            orchestration=7,
            fault_s=30.0,
            heal_s=240.0,
            change_every=0.5,
            kill_every=2.5,
            transfer_every=6.0,
        ),
        replace(
            MIXED,
            name=SCALING,
            services=0,
            orchestration=4,
            orchestration_kinds="a",
            fault_s=90.0,
            heal_s=240.0,
            change_every=3.0,
            kill_every=15.0,
            crash_container_every=20.0,
            power_off_every=30.0,
            cut_every=20.0,
            freeze_every=30.0,
            transfer_every=20.0,
            churn_every=NEVER,
            register_every=1.0,
        ),
        replace(
            MIXED,
            name=NETWORKS,
            services=1,
            networks=4,
            fault_s=20.0,
            change_every=0.25,
            kill_every=2.0,
            transfer_every=5.0,
        ),
        replace(MIXED, name=ROLLOUTS, services=1, rollouts=4, change_every=0.5, kill_every=1.5, transfer_every=3.0),
    )
}
"""By name. Seeds go through them in turn, unless one is asked for."""
LONG = "long"
"""For soaks: every seed's own weather for a minute, with lost logs and full disks in it."""
NAMES = (*PROFILES, LONG)


def profile_of(seed: int, name: str | None = None) -> Profile:
    """The profile of a seed."""
    if name == LONG:
        return _lengthened(profile_of(seed))
    if name is not None:
        return PROFILES[name]
    names = [known for known in PROFILES if known not in _ASKED_FOR]
    return PROFILES[names[seed % len(names)]]


def _lengthened(profile: Profile) -> Profile:
    return replace(
        profile,
        name=f"{LONG}-{profile.name}",
        fault_s=60.0,
        daemon_kill=1.0,
        lose_log_every=4.0,
        full_disk_every=min(profile.full_disk_every, 15.0),
    )

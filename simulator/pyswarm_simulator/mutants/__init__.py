"""The bugs that the simulator must find: importing this registers them all (`planting.MUTANTS`)."""

from pyswarm_simulator.mutants import cluster, consensus, jobs, networks, orchestration

__all__ = ["cluster", "consensus", "jobs", "networks", "orchestration"]

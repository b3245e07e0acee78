from swarm_fixtures import swarm, swarm3

__all__ = ["swarm", "swarm3"]

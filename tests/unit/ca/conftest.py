import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))  # one harness serves the API, the CA and access

from swarm_fixtures import swarm, swarm3

__all__ = ["swarm", "swarm3"]

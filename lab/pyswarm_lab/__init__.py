"""A whole cluster's machines on one machine, each in namespaces of its own. `Lab` is the way in."""

from pyswarm_lab.errors import LabError
from pyswarm_lab.lab import Lab

__all__ = ["Lab", "LabError"]

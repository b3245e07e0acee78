"""A whole cluster's machines on one machine, each in namespaces of its own. `Lab` is the way in."""

from pyswarm_lab.errors import LabError
from pyswarm_lab.lab import Lab
from pyswarm_lab.machine import environment
from pyswarm_lab.records import lab_names

__all__ = ["Lab", "LabError", "environment", "lab_names"]

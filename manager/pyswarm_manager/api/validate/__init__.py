"""Whether a spec that a user sent can be wanted at all, judged by itself.

Pure: no store, no clock. Each check yields (field path, sentence) for everything that is wrong, so that a user mends
all of it at once; what depends on other objects (names, ports, networks) is decided where the write is made.
Docker's wording is used where docker refuses the same thing. Must never raise anything but InvalidArgument.
"""

from pyswarm_manager.api.validate.cluster import check_cluster_spec
from pyswarm_manager.api.validate.fields import decode, refuse
from pyswarm_manager.api.validate.network import check_network_spec
from pyswarm_manager.api.validate.node import check_node_spec
from pyswarm_manager.api.validate.service import check_service_spec

__all__ = [
    "check_cluster_spec",
    "check_network_spec",
    "check_node_spec",
    "check_service_spec",
    "decode",
    "refuse",
]

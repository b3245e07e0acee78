"""The control plane of one manager node: Raft, the store, what the leader decides, and the API."""

from pyswarm_common.tls import require_tls13

require_tls13()

"""`pyswarm`: docker's grammar, over the daemon's socket or to a manager elsewhere."""

from pyswarm_common.tls import require_tls13

require_tls13()

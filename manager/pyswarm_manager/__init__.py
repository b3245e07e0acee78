

from pyswarm_common.tls import require_tls13

require_tls13()

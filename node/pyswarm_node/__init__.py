"""pyswarmd: the daemon on every host.

Composes runtime, overlay and agent, runs the manager as a child process on managers, and serves the local socket: its
own part (being a member of a cluster, images) itself, the rest by handing it to the manager byte for byte.
"""

import os

from pyswarm_common.tls import require_tls13

# Read by gRPC when it is imported, here and (inherited) in the manager. The daemon starts other programs by fork and
# exec in one step (libuv), and never goes on in a forked child, so gRPC's own preparations for that only cost time and
# log lines. What gRPC says below an error is about its connections; ours are told of by whoever uses them.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
require_tls13()

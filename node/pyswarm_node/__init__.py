"""pyswarmd: the daemon on every host.

Composes runtime, overlay and agent, runs the manager as a child process on managers, and serves the local socket: its
own part (being a member of a cluster, images) itself, the rest by handing it to the manager byte for byte.
"""

"""The planner: a pure function from the cluster's state to one set of changes.

Decides which tasks exist, what they get (addresses, ports) and where they run. Takes time, randomness and ids as
arguments; never does I/O, never waits, never keeps anything but the `Ledger`, which is derived from the tables. Who
acts next: the leader's loop (`pyswarm_manager.leader`) proposes the changes.
"""

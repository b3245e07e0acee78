"""Lanes: the messages of consensus on a TLS connection of their own, beside the gRPC stream that vouches for it.

A message through gRPC costs each side several threads that wake one another; on a lane it costs a write and a read of
the event loop. The stream (`raft.transport`, `raft.servicer`) stays: it says who speaks, is refused where a manager may
not, tells when a member was removed, and carries what no lane takes. A lane lives no longer than its stream.
"""

"""The pure core of consensus: see `raft.Raft`."""

"""The names of this host's sandboxes, answered by a process of its own that outlives the daemon."""

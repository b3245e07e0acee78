"""Service specs out of flags, and the progress of a service towards its spec. Pure but for `follow`."""

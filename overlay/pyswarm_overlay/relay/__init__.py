"""A process that hands connections on with a PROXY protocol header: what the kernel's translation cannot do."""

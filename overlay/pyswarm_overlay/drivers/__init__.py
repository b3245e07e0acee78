"""What a network is on this host, by its driver: overlay, bridge, macvlan, or a plugin of Docker's kind."""

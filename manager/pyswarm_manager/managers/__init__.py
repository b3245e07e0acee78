"""How many managers there are, and who: what may be taken away, and what the cluster adds or replaces by itself."""

"""The agent's decisions, pure: no clock, no I/O, no await. The modules beside this package perform them."""

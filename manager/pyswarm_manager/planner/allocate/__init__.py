"""Allocate: addresses, VNIs and ports. What is in use is derived from the tables, so it cannot drift from them."""

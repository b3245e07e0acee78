"""Consensus among managers: a pure core, a log on SQLite, a gRPC transport, and the driver that joins them."""

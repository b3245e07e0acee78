"""Where a member's log survives a crash: the port, SQLite, and a disk in memory for tests."""

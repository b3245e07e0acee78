"""The file format of backups: what managers write, and what everybody who holds the key can read and check."""

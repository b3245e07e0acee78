"""Backups as files of the user: written whole or not at all, read with the key that the user has."""

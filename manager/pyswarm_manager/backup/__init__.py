"""Backups of the cluster's state, and the two ways back: a cluster made of a backup, or of one surviving manager."""

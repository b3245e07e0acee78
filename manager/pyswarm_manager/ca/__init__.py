"""Certificates and membership: how a machine becomes a node, and a node a manager."""

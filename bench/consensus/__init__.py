"""Managers compared: pyswarm's, etcd and Docker Swarm, under the same clients. Run by `python -m bench.consensus`."""

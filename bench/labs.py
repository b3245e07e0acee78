"""Clusters to measure: a lab with an image in it, a client of its first host, what its processes burn."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.client import Client, service
from bench.memory import host_cpu_s
from pyswarm_lab import Lab
from pyswarm_lab.image import write_rootfs

IMAGE = "bench:1"


class Accounting:
    """CPU of all hosts of a lab, in the form that `locked` expects."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def cpu_seconds(self) -> float:
        return sum(host_cpu_s(host.init.pid) for host in self._lab.hosts if host.init is not None)


@contextlib.contextmanager
def cluster(managers: int = 1, workers: int = 0) -> Iterator[Lab]:
    """A lab with a cluster in it, and the image on its first host."""
    lab = Lab.up(f"bench{os.getpid()}", managers, workers)
    try:
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory) / "rootfs.tar"
            write_rootfs(archive)
            inside = lab.root("n1") / "run/rootfs.tar"
            inside.write_bytes(archive.read_bytes())
            change = 'CMD ["sleep", "1000000"]'
            lab.exec("n1", ["pyswarm", "image", "import", "--change", change, "/run/rootfs.tar", IMAGE], check=True)
            inside.unlink()
        yield lab
    finally:
        lab.down()


def client(lab: Lab, host: str = "n1", timeout_s: float = 30.0) -> Client:
    return Client(str(lab.root(host) / "run/pyswarm/pyswarm.sock"), timeout_s)


def warm(lab: Lab, api: Client) -> None:
    """Every node has the image, as after `docker load` on every node."""
    nodes = len(lab.hosts)
    sid = api.create_service(service("warm", IMAGE, nodes * 2))
    api.wait_running(sid, nodes * 2)
    api.remove_service(sid)
    api.wait_gone(sid)

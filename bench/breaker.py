"""The breaker at full measure: 14 services, 150 changes, one that crashes for ever, busy CPUs, cuts of 10 to 30 s.

    python -m bench.breaker [--seed N] [--redeploys N] [--cuts N]

Exits with 1 and says what is wrong if, 5 s after the last task runs, any name, tunnel, virtual address, published port
or address on any node is not as the managers say. `tests/e2e/test_breaker.py` runs a shorter one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "e2e"))

from breaker import NETWORKS, Measure, Storm, inspect, settled
from e2e_cluster import IMAGE, lab_with_clean_end

from pyswarm_lab.image import CHANGES, write_rootfs

QUIET_S = 5.0


def main() -> int:
    """One storm in a lab of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--redeploys", type=int, default=Measure().redeploys)
    parser.add_argument("--cuts", type=int, default=Measure().cuts)
    args = parser.parse_args()
    measure = replace(Measure(), redeploys=args.redeploys, cuts=args.cuts)
    for cluster in lab_with_clean_end(f"breaker-{os.getpid()}", "--managers", "3", "--workers", "2"):
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory) / "rootfs.tar"
            write_rootfs(archive)
            changes = [part for change in CHANGES for part in ("--change", change)]
            cluster.run("n1", "image", "import", *changes, str(archive), IMAGE)
        for name in NETWORKS:
            cluster.run("n1", "network", "create", "--driver", "overlay", name)
        began = time.monotonic()
        Storm(cluster, measure, args.seed).run()
        stormed = time.monotonic()
        settled(cluster)
        print(f"{measure}: {stormed - began:.0f} s of storm, settled {time.monotonic() - stormed:.1f} s later")
        time.sleep(QUIET_S)
        known = settled(cluster)
        wrong = inspect(cluster, known)
        print(f"{len(known.tasks)} tasks of {len(known.services)} services: {len(wrong)} things wrong")
        print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

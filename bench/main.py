"""`make bench`: measure pyswarm, and Docker Swarm beside it where docker.io is installed; a table, and JSON.

    python -m bench.main [--suites single,scale,leader,worker] [--reps 3] [--no-docker] [--out bench/results]

Two cores are shared and noisy: compare columns of one run, never figures of two days.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.docker_swarm.measure import Results
from bench.suites import DOCKER_SWARM, SUITES, docker_suite


def main() -> int:
    """Run the suites and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--no-docker", dest="docker", action="store_false")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("the bench makes network namespaces: run it as root", file=sys.stderr)
        return 1
    args.out.mkdir(parents=True, exist_ok=True)
    has_docker = args.docker and shutil.which("dockerd") is not None
    if args.docker and not has_docker:
        print("Docker Swarm is not measured: docker.io is not installed", file=sys.stderr)
    files = []
    for name in args.suites.split(","):
        results = Results("pyswarm", name)
        SUITES[name](results, args.reps)
        files.append(args.out / f"pyswarm-{name}.json")
        results.write(str(files[-1]))
        # Suite by suite, so that what is compared was measured minutes apart, not an hour.
        if has_docker and docker_suite(name, args.out / f"docker-{name}.json", args.reps):
            files.append(args.out / f"docker-{name}.json")
    return subprocess.run([sys.executable, str(DOCKER_SWARM), "report", *map(str, files)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

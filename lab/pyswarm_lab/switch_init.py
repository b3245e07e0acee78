"""Holds the network namespace of a lab's switch. Says `mounted`, waits for `go`, says `started`, then sleeps for ever.

python -m pyswarm_lab.switch_init LAB_DIR
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Live until killed."""
    print("mounted", flush=True)
    if sys.stdin.readline() != "go\n":
        return 1
    print("started", flush=True)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())

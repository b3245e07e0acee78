"""Starts the first process of a lab host (or of its switch) in namespaces of its own, prints its pid, and ends.

A program of its own because `unshare` changes the caller: this process has no threads, makes the namespaces, and has
the first process of the new pid namespace made by exec. Its standard input and output pass on to that process.

    python -m pyswarm_lab.boot net,pid,mnt,uts PROGRAM [ARG...]
"""

from __future__ import annotations

import ctypes
import os
import sys

_FLAGS = {"mnt": 0x0002_0000, "uts": 0x0400_0000, "pid": 0x2000_0000, "net": 0x4000_0000}


def main(argv: list[str]) -> int:
    """Start `argv[1:]` in new namespaces of the kinds in `argv[0]`."""
    flags = sum(_FLAGS[kind] for kind in argv[0].split(","))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        print(f"error: cannot make namespaces ({argv[0]}): {os.strerror(number)}", flush=True)
        return 1
    # A session of its own: Ctrl-C at `pyswarm lab up` is not meant for the host's processes.
    pid = os.posix_spawn(argv[1], argv[1:], os.environ, setsid=True)
    print(f"pid {pid}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

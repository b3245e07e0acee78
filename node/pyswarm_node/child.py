"""Runs a program that the kernel kills when the daemon dies: `python child.py <daemon's pid> <program> <argument>…`.

SIGHUP waits until the program is ready for it and unblocks it: "read your certificate again" must not end one that is
still starting.

Its own program, and not a hook between fork and exec, since the daemon has threads. Imports little: it is on the way of
every start of a manager.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Becomes the program."""
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before we could ask to be told
        sys.exit("the daemon has gone")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    os.execv(argv[0], argv)  # noqa: S606 - that is what this program is for


if __name__ == "__main__":
    main()

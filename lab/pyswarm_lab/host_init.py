"""The first process of a lab host: mounts, then one daemon, then reaping. Its death is the host's power cut.

Decides nothing about the cluster, restarts nothing by itself. Lives until it is killed; the kernel then ends every
process in its pid namespace, containers included. SIGUSR1 starts the daemon again when it has ended.

Spoken on standard output, before it is given up: `mounted`, then after a line on standard input, `started`; or
`error: …`. If the lab dies before it says go, the host goes away.

    python -m pyswarm_lab.host_init HOST_DIR HOST_NAME STATE_DIR RUN_DIR DAEMON [ARG...]
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from pyswarm_lab.private_files import make_private

_CGROUPS = "/sys/fs/cgroup"
_SIGNALS = {signal.SIGCHLD, signal.SIGUSR1, signal.SIGTERM}


def main(argv: list[str]) -> int:
    """Set the host up, start the daemon, reap for ever."""
    if os.getpid() != 1:
        print("error: this sets up the host that it is started in, so it must be the first process of one", flush=True)
        return 1
    host_dir, name, state_dir, run_dir, *daemon = argv
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        _set_up(Path(host_dir), name, state_dir, run_dir)
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", None) or str(error)
        print(f"error: {output.strip().splitlines()[-1]}", flush=True)
        return 1
    print("mounted", flush=True)
    if sys.stdin.readline() != "go\n":
        return 1
    keeper = _Daemon(daemon, Path(host_dir))
    keeper.start()
    print("started", flush=True)
    _let_go_of_terminal()
    _reap_for_ever(keeper)
    return 0


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)


def _unmount(*arguments: str) -> None:
    subprocess.run(["umount", *arguments], check=True, capture_output=True, text=True)


def _set_up(host_dir: Path, name: str, state_dir: str, run_dir: str) -> None:
    os.chdir("/")
    socket.sethostname(name)
    _mount("--make-rprivate", "/")
    _mount("-t", "proc", "proc", "/proc")
    # /run is this host's alone: sockets, pid files, crun's and ip-netns' state of other hosts must not be seen.
    _mount("-t", "tmpfs", "-o", "mode=755,size=64m", "tmpfs", "/run")
    _mount_sys()
    Path(run_dir).mkdir(mode=0o700, parents=True)
    Path(state_dir).mkdir(parents=True, exist_ok=True)
    var = host_dir / "var"
    var.mkdir(mode=0o700, exist_ok=True)
    _mount("--bind", str(var), state_dir)
    make_private(host_dir, name)


def _mount_sys() -> None:
    """A /sys with this host's interfaces and the machine's cgroups, without the hybrid v2 mount that crun refuses."""
    keep = Path("/run/cgroup")
    keep.mkdir()
    _mount("--rbind", _CGROUPS, str(keep))
    _unmount("--recursive", "--lazy", "/sys")
    _mount("-t", "sysfs", "sysfs", "/sys")
    _mount("--move", str(keep), _CGROUPS)
    keep.rmdir()
    if os.path.ismount(f"{_CGROUPS}/unified"):
        _unmount(f"{_CGROUPS}/unified")


class _Daemon:
    """The one program the host runs; `daemon` in the host's folder tells whether it does."""

    def __init__(self, argv: list[str], host_dir: Path) -> None:
        self._argv = argv
        self._log = host_dir / "pyswarmd.log"
        self._status = host_dir / "daemon"
        self.pid = 0

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.pid:
            return
        actions = (
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self._log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        )
        self.pid = os.posix_spawn(
            self._argv[0], self._argv, os.environ, file_actions=actions, setsigmask=(), setsid=True
        )
        self._say("running")

    def wait_if_dying(self) -> None:
        """A daemon that was just killed must not count as running: its last threads may take a moment to end."""
        if self.pid and Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            self.ended(os.waitpid(self.pid, 0)[1])

    def ended(self, status: int) -> None:
        """Note how it ended."""
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        self._say(f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}")

    def _say(self, text: str) -> None:
        self._status.write_text(text + "\n")


def _let_go_of_terminal() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def _reap_for_ever(daemon: _Daemon) -> None:
    while True:
        number = signal.sigwaitinfo(_SIGNALS).si_signo
        if number == signal.SIGTERM:
            return
        if number == signal.SIGUSR1:
            daemon.wait_if_dying()
            daemon.start()
        _reap(daemon)


def _reap(daemon: _Daemon) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == daemon.pid:
            daemon.ended(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`wireguard-go`, one process for each device: started, adopted, spoken to through its socket, ended.

It is told its key through its socket, never by arguments, environment or files. It lives in a session of its own and
goes on when the daemon ends; the next one finds it by its socket, whose peer the kernel names. Removing that socket is
how one asks it to end. All methods block.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from pyswarm_common.errors import Unavailable
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.kernel import rtnl

from . import messages
from .core import uapi
from .core.wireguard import DeviceChange, FoundDevice

PROGRAM = "wireguard-go"
_LINK_KIND = "tun"
_SOCKETS = Path("/var/run/wireguard")
"""Where `wireguard-go` has them, and `wg` looks for them."""
_START_S = 10.0
_ANSWER_S = 5.0
_END_S = 2.0
_LOG_LIMIT = 1 << 20
_CREDENTIALS = struct.Struct("=iii")


class UserspaceKind:
    """The processes of one host."""

    name = PROGRAM

    def __init__(self, ground: Ground, log: Path, program: str) -> None:
        self._ground = ground
        self._inner = ground.inner
        self._log = log
        self._program = program
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._pids: dict[str, int] = {}

    def ensure(self, device: str) -> bool:
        """A process that answers, and its device where it belongs. Anything less is made anew."""
        self._reap(device)
        is_made = False
        if not self.is_there(device):
            if not self._is_ready_to_move(device):
                self.remove(device)
                self._start(device)
                is_made = True
            self._move(device)
        self._pids[device] = self._pid(device)
        return is_made

    def is_there(self, device: str) -> bool:
        link = self._inner.links().get(device)
        return link is not None and link.kind == _LINK_KIND and self._is_answering(device)

    def read(self, device: str) -> FoundDevice:
        return uapi.device(self._ask(device, uapi.GET))

    def write(self, device: str, change: DeviceChange) -> None:
        uapi.check(self._ask(device, uapi.request(change)))

    def remove(self, device: str) -> None:
        """Its process ends, and the device with it."""
        with suppress(OSError):
            self._end(self._pid(device))
        child = self._children.get(device)
        if child is not None and child.poll() is None:  # it never came so far as to listen
            self._end(child.pid)
        self._socket(device).unlink(missing_ok=True)
        self._pids.pop(device, None)
        self._reap(device)
        for netlink in (self._inner.netlink(), self._ground.netlink):
            netlink.transact([rtnl.delete_link_named(device)])

    def processes(self) -> dict[str, int]:
        return dict(self._pids)

    # -- the process -----------------------------------------------------------------------------------------------

    def _start(self, device: str) -> None:
        self._spawn(device)
        deadline = time.monotonic() + _START_S
        while not (self._is_answering(device) and rtnl.read_link(self._ground.netlink, device) is not None):
            if self._children[device].poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"{PROGRAM} did not start: see {self._log} on this node")
            time.sleep(0.01)  # a few tens of milliseconds: it tells nobody when it listens

    def _spawn(self, device: str) -> None:
        with self._open_log() as log:
            self._children[device] = subprocess.Popen(
                [self._program, "--foreground", device],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"LOG_LEVEL": "error", "PATH": os.defpath},
                cwd="/",
                start_new_session=True,
            )

    def _open_log(self) -> BinaryIO:
        """Only errors are in it; should it have grown all the same, it begins anew."""
        is_long = self._log.exists() and self._log.stat().st_size > _LOG_LIMIT
        return self._log.open("wb" if is_long else "ab")

    def _end(self, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(pidfd, number)
                if select.select([pidfd], [], [], _END_S)[0]:
                    return
        finally:
            os.close(pidfd)

    def _reap(self, device: str) -> None:
        """Take note of a child that has ended."""
        child = self._children.get(device)
        if child is not None and child.poll() is not None:
            del self._children[device]

    # -- its device ------------------------------------------------------------------------------------------------

    def _is_ready_to_move(self, device: str) -> bool:
        """A daemon ended between starting and moving."""
        return self._is_answering(device) and rtnl.read_link(self._ground.netlink, device) is not None

    def _move(self, device: str) -> None:
        link = rtnl.read_link(self._ground.netlink, device)
        if link is None:
            raise Unavailable(f"the tunnel device {device} has gone while it was made: it is tried again")
        self._ground.netlink.transact([messages.move_link(link.index, self._inner.fd)])

    # -- its socket ------------------------------------------------------------------------------------------------

    def _socket(self, device: str) -> Path:
        return _SOCKETS / f"{device}.sock"

    def _connect(self, device: str) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(_ANSWER_S)
            connection.connect(str(self._socket(device)))
        except BaseException:
            connection.close()
            raise
        return connection

    def _ask(self, device: str, request: bytes) -> bytes:
        answer = b""
        with self._connect(device) as connection:
            connection.sendall(request)
            while not uapi.is_whole(answer) and len(answer) <= uapi.ANSWER_LIMIT:
                part = connection.recv(1 << 16)
                if not part:
                    break
                answer += part
        return answer

    def _is_answering(self, device: str) -> bool:
        try:
            self._connect(device).close()
        except OSError:
            return False
        return True

    def _pid(self, device: str) -> int:
        with self._connect(device) as connection:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid = _CREDENTIALS.unpack(credentials)[0]
        if pid <= 0:
            raise OSError(errno.ESRCH, f"the process of tunnel {device} is not in this pid namespace")
        return int(pid)

"""Many connections, one after the other but several under way: run inside a network namespace.

    serve PORT NETNS...              in each namespace ("-": ours): take connections at PORT and close them
    rate HOST PORT SECONDS [WAITING] open connections, at most WAITING (32) at once: how many a second, how many failed
    reach SECONDS HOST...            for each address: when (Unix time) its port 80 first answered

Prints one line of JSON (`serve`: `up`, then nothing until it is killed).
"""

from __future__ import annotations

import ctypes
import errno
import json
import select
import socket
import struct
import sys
import threading
import time
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_LINGER_NOT = struct.pack("ii", 1, 0)
"""Closing resets, so that neither side keeps a connection in TIME_WAIT."""


def _listen(path: str, port: int) -> socket.socket:
    """In a thread that enters the namespace and ends."""
    opened: list[socket.socket] = []

    def enter() -> None:
        if path != "-":
            with Path(path).open("rb") as netns:
                if ctypes.CDLL(None, use_errno=True).setns(netns.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), path)
        opened.append(socket.create_server(("0.0.0.0", port), backlog=4096))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    opened[0].setblocking(False)
    return opened[0]


def serve(port: int, paths: list[str]) -> None:
    poll = select.epoll()
    listeners = {listener.fileno(): listener for listener in (_listen(path, port) for path in paths)}
    for fd in listeners:
        poll.register(fd, select.EPOLLIN)
    print("up", flush=True)
    held: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poll.poll():
            if fd in listeners:
                try:
                    while True:
                        connection, _peer = listeners[fd].accept()
                        held[connection.fileno()] = connection
                        poll.register(connection.fileno(), select.EPOLLRDHUP | select.EPOLLIN)
                except BlockingIOError:
                    continue
            else:
                held.pop(fd).close()


def rate(host: str, port: int, seconds: float, waiting: int) -> dict[str, float]:
    poll = select.epoll()
    open_: dict[int, tuple[socket.socket, float]] = {}
    took: list[float] = []
    failed = 0
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds or open_:
        while len(open_) < waiting and now - began < seconds:
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            started = time.perf_counter()
            if sock.connect_ex((host, port)) not in (0, errno.EINPROGRESS):
                failed += 1
                sock.close()
                break
            open_[sock.fileno()] = (sock, started)
            poll.register(sock.fileno(), select.EPOLLOUT)
        for fd, _ in poll.poll(5):
            sock, started = open_.pop(fd)
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                failed += 1
            else:
                took.append(time.perf_counter() - started)
            sock.close()
    wall = time.perf_counter() - began
    took.sort()
    return {
        "per_s": round(len(took) / wall, 1),
        "failed": failed,
        "p50_us": round(took[len(took) // 2] * 1e6, 1),
        "p99_us": round(took[int(len(took) * 0.99)] * 1e6, 1),
    }


def reach(seconds: float, hosts: list[str]) -> dict[str, float | None]:
    """Asks again at once, whatever the refusal."""
    end = time.monotonic() + seconds
    found: dict[str, float | None] = dict.fromkeys(hosts)
    while None in found.values() and time.monotonic() < end:
        for host in [host for host, when in found.items() if when is None]:
            with socket.socket() as sock:
                sock.settimeout(1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                if sock.connect_ex((host, 80)) == 0:
                    found[host] = time.time()
        time.sleep(0.001)
    return found


def main(mode: str, *arguments: str) -> None:
    if mode == "serve":
        serve(int(arguments[0]), list(arguments[1:]))
    elif mode == "rate":
        waiting = int(arguments[3]) if len(arguments) > 3 else 32
        print(json.dumps(rate(arguments[0], int(arguments[1]), float(arguments[2]), waiting)))
    else:
        print(json.dumps(reach(float(arguments[0]), list(arguments[1:]))))


if __name__ == "__main__":
    main(*sys.argv[1:])

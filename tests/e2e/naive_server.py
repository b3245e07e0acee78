"""A server that loses whatever is under way when it is told to end: it ends at once. Each answer takes a moment.

Runs in a container as its first process, with nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

QUICK_S, SLOW_S = 0.02, 0.3
BODY = os.uname().nodename.encode() + b"\n"
ANSWER = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


def answer(connection: socket.socket) -> None:
    with connection:
        request = connection.recv(4096)
        if request:
            time.sleep(SLOW_S if b"/slow" in request else QUICK_S)
            connection.sendall(ANSWER)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    listener = socket.create_server(("", 80), backlog=1024)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()

"""What a container, or a host, gets to see of services: run inside its network namespace.

    python breaker_probe.py < {"names": [NAME, ...], "gets": [[ADDRESS, PORT, TIMES], ...]}

Prints {"names": {NAME: [ADDRESS, ...]}, "gets": [[ANSWER, ...], ...]}: each answer once; an error is one too.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from typing import Any

RESOLVER = ("127.0.0.11", 53)
TIMEOUT_S = 2.0


def resolve(name: str) -> list[str]:
    """The IPv4 addresses of a name; no retry: whoever asks again might miss what was wrong."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.sendto(b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0" + labels + b"\0\0\x01\0\x01", RESOLVER)
        reply = sock.recv(65535)
    (count,) = struct.unpack(">H", reply[6:8])
    at, found = 12 + len(labels) + 5, []
    for _ in range(count):
        while reply[at] and reply[at] < 0xC0:
            at += reply[at] + 1
        at += 2 if reply[at] >= 0xC0 else 1
        kind, _class, _ttl, size = struct.unpack(">HHIH", reply[at : at + 10])
        at += 10
        if kind == 1:
            found.append(socket.inet_ntoa(reply[at : at + 4]))
        at += size
    return sorted(found)


def get(address: str, port: int) -> str:
    """The body that a server answers with, on a connection of its own."""
    try:
        with socket.create_connection((address, port), TIMEOUT_S) as connection:
            connection.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
            answer = b""
            while part := connection.recv(65536):
                answer += part
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return answer.partition(b"\r\n\r\n")[2].decode().strip()


def answers(address: str, port: int, times: int) -> list[str]:
    """All different ones of so many requests; an error is the last, since the next would take as long."""
    found: set[str] = set()
    for _ in range(times):
        answer = get(address, port)
        found.add(answer)
        if "Error" in answer:
            break
    return sorted(found)


def main() -> None:
    wanted: dict[str, Any] = json.load(sys.stdin)
    names = {name: resolve(name) for name in wanted["names"]}
    gets = [answers(address, port, times) for address, port, times in wanted["gets"]]
    json.dump({"names": names, "gets": gets}, sys.stdout)


if __name__ == "__main__":
    main()

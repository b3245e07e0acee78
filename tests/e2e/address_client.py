"""Asks servers who they think it is.

`python address_client.py PROTOCOL,HOST,PORT...` prints a JSON list of the answers, `refused` where nobody listens and
`silent` where nothing came within two seconds.
"""

from __future__ import annotations

import json
import socket
import sys

TIMEOUT_S = 2.0


def ask(protocol: str, host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as asking:
        asking.settimeout(TIMEOUT_S)
        try:
            asking.connect((host, port))
            if protocol == "udp":
                asking.send(b"who am I?")
            return asking.recv(4096).decode().strip() or "refused"
        except ConnectionError:
            return "refused"
        except TimeoutError:
            return "silent"


if __name__ == "__main__":
    asked = [text.split(",") for text in sys.argv[1:]]
    sys.stdout.write(json.dumps([ask(protocol, host, int(port)) for protocol, host, port in asked]))

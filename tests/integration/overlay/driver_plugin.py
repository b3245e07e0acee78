"""A small real plugin of Docker's kind in its own process: a network driver and an IPAM driver on one unix socket.

Each network is a bridge, each endpoint a veth on it whose other end waits in the host's namespace. It keeps its state
in memory and writes every call to a file, so that a test sees what was asked. Run inside the host's namespace:
`driver_plugin.py SOCKET LOG [global]`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socketserver
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

Document = dict[str, Any]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class State:
    """What the driver has made and given out."""

    def __init__(self, log: Path, scope: str) -> None:
        self.log = log
        self.scope = scope
        self.networks: dict[str, str] = {}
        self.endpoints: dict[str, str] = {}
        self.pools: dict[str, set[str]] = {}

    def answer(self, method: str, request: Document) -> Document:
        with self.log.open("a") as log:
            log.write(json.dumps([method, request]) + "\n")
        handler = getattr(self, method.replace(".", "_").lower(), None)
        if handler is None:
            return {}
        return dict(handler(request) or {})

    def plugin_activate(self, _request: Document) -> Document:
        return {"Implements": ["NetworkDriver", "IpamDriver"]}

    def networkdriver_getcapabilities(self, _request: Document) -> Document:
        return {"Scope": self.scope, "ConnectivityScope": self.scope}

    def networkdriver_createnetwork(self, request: Document) -> None:
        if request["Options"]["com.docker.network.generic"].get("refuse"):
            raise ValueError("this network is refused")
        name = "plug" + request["NetworkID"][-6:]
        ip("link", "add", name, "type", "bridge")
        ip("link", "set", name, "up")
        for data in request["IPv4Data"]:
            ip("address", "add", data["Gateway"], "dev", name)
        self.networks[request["NetworkID"]] = name

    def networkdriver_deletenetwork(self, request: Document) -> None:
        ip("link", "delete", self.networks.pop(request["NetworkID"]))

    def networkdriver_createendpoint(self, request: Document) -> Document:
        inner, outer = "pin" + request["EndpointID"][:8], "pou" + request["EndpointID"][:8]
        ip("link", "add", outer, "type", "veth", "peer", "name", inner)
        ip("link", "set", outer, "master", self.networks[request["NetworkID"]], "up")
        self.endpoints[request["EndpointID"]] = outer
        return {"Interface": {"MacAddress": "02:aa:00:00:00:" + request["EndpointID"][:2]}}

    def networkdriver_join(self, request: Document) -> Document:
        inner = "pin" + request["EndpointID"][:8]
        if self.scope == "liar":
            inner = "nosuch0"
        return {
            "InterfaceName": {"SrcName": inner, "DstPrefix": "eth"},
            "Gateway": "10.99.0.1",
            "StaticRoutes": [{"Destination": "198.18.0.0/16", "RouteType": 0, "NextHop": "10.99.0.1"}],
            "DisableGatewayService": False,
        }

    def networkdriver_deleteendpoint(self, request: Document) -> None:
        outer = self.endpoints.pop(request["EndpointID"])
        subprocess.run(["ip", "link", "delete", outer], check=False, capture_output=True)

    def ipamdriver_getdefaultaddressspaces(self, _request: Document) -> Document:
        return {"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "everywhere"}

    def ipamdriver_requestpool(self, request: Document) -> Document:
        pool = request["Pool"] or "10.99.0.0/24"
        self.pools[pool] = set()
        return {"PoolID": pool, "Pool": pool, "Data": {}}

    def ipamdriver_releasepool(self, request: Document) -> None:
        del self.pools[request["PoolID"]]

    def ipamdriver_requestaddress(self, request: Document) -> Document:
        network, used = ipaddress.ip_network(request["PoolID"]), self.pools[request["PoolID"]]
        wanted = request["Address"] or next(str(host) for host in network.hosts() if str(host) not in used)
        if wanted in used:
            raise ValueError(f"address {wanted} is taken")
        used.add(wanted)
        return {"Address": f"{wanted}/{network.prefixlen}"}

    def ipamdriver_releaseaddress(self, request: Document) -> None:
        self.pools[request["PoolID"]].remove(request["Address"])


class Handler(BaseHTTPRequestHandler):
    """One call."""

    protocol_version = "HTTP/1.1"
    state: State

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        request = json.loads(self.rfile.read(length) or b"{}")
        try:
            answer, status = self.state.answer(self.path.strip("/"), request), 200
        except Exception as error:
            answer, status = {"Err": f"{type(error).__name__}: {error}"}, 500
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.docker.plugins.v1.2+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Nothing: the calls are in the log."""


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def main() -> None:
    path, log = Path(sys.argv[1]), Path(sys.argv[2])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    Handler.state = State(log, sys.argv[3] if len(sys.argv) > 3 else "local")
    with Server(str(path), Handler) as server:
        os.write(1, b"ready\n")
        server.serve_forever()


if __name__ == "__main__":
    main()

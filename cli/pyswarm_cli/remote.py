"""The way to a manager on another machine: `tcp://HOST[:PORT]`, with a person's client certificate.

The directory holds `cert.pem`, `key.pem` and `ca.pem`, as docker's DOCKER_CERT_PATH does. The manager proves itself by
its role in the cluster of that root, not by its address. Imports gRPC.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

import grpc

from pyswarm_common import errors
from pyswarm_common.model import NodeRole
from pyswarm_common.server_names import role_name

DEFAULT_PORT = 2377
CERT_FILE, KEY_FILE, ROOT_FILE = "cert.pem", "key.pem", "ca.pem"
_SCHEME = "tcp://"
_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_CONNECT_TIMEOUT_S = 5.0


def is_remote(host: str) -> bool:
    """Whether the host is an address rather than a socket."""
    return host.startswith(_SCHEME)


def open_remote(host: str, tls_dir: str, options: tuple[tuple[str, int], ...]) -> grpc.Channel:
    """A channel by mTLS. Raises a refusal that says what is missing, or that nobody answers there."""
    name, port = read_address(host)
    credentials = read_credentials(Path(tls_dir).expanduser() if tls_dir else default_directory())
    check_reachable(name, port, host)
    target = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    named = (*options, ("grpc.ssl_target_name_override", role_name(NodeRole.MANAGER)))
    return grpc.secure_channel(target, credentials, options=named)


def default_directory() -> Path:
    return Path("~/.pyswarm").expanduser()


def read_address(host: str) -> tuple[str, int]:
    """Host and port of `tcp://HOST[:PORT]`."""
    match = _ADDRESS.fullmatch(host.removeprefix(_SCHEME))
    port = int(match["port"] or DEFAULT_PORT) if match is not None else 0
    if match is None or not 0 < port < 65536:
        raise errors.InvalidArgument(f'"{host}" is not an address: write tcp://HOST[:PORT]')
    return match["ipv6"] or match["host"], port


def read_credentials(directory: Path) -> grpc.ChannelCredentials:
    parts = []
    for name in (ROOT_FILE, KEY_FILE, CERT_FILE):
        path = directory / name
        try:
            parts.append(path.read_bytes())
        except OSError as error:
            raise errors.FailedPrecondition(
                f"no client certificate: {path} cannot be read ({error.strerror}); make one with `pyswarm client-cert "
                "create` on a manager, and say where it is by --tls-dir or PYSWARM_TLS_DIR"
            ) from None
    root, key, certificate = parts
    return grpc.ssl_channel_credentials(root_certificates=root, private_key=key, certificate_chain=certificate)


def check_reachable(name: str, port: int, host: str) -> None:
    """Fail at once and in plain words where gRPC would try for a while."""
    try:
        socket.create_connection((name, port), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError as error:
        reason = (error.strerror or str(error) or "no answer").lower()
        raise errors.Unavailable(
            f"Cannot connect to a pyswarm manager at {host} ({reason}). Is it a manager, and its port open?"
        ) from None

"""The way in for a machine without a certificate: which managers are asked, and what they give.

The token is only sent to a manager that has proved to be of the token's cluster (see the join client). A manager that
cannot be reached is passed over; a refusal is an answer.
"""

from __future__ import annotations

import socket

from pyswarm.v1 import ca_pb2, node_pb2
from pyswarm_common.errors import PyswarmError, Unavailable
from pyswarm_common.identity import JoinToken, NodeIdentity, generate_key, key_to_pem, make_csr
from pyswarm_common.identity.join_client import fetch_root_certificate, join_address, request_certificate

from .paths import join_host_port


async def get_certificate(
    request: node_pb2.JoinRequest, token: JoinToken, own_address: str, data_path_address: str
) -> tuple[NodeIdentity, ca_pb2.IssueCertificateResponse]:
    """From the first manager that answers. A refusal is an answer."""
    key = generate_key()
    ask = ca_pb2.IssueCertificateRequest(
        csr=make_csr(key),
        token=request.token.strip(),
        availability=request.availability,
        hostname=socket.gethostname(),
        address=own_address,
        data_path_address=data_path_address,
    )
    for address in request.remote_addrs:
        join_address(address)  # refuse a wrong one before the first is asked
    last: PyswarmError = Unavailable("no manager was given")
    for address in request.remote_addrs:
        try:
            root = await fetch_root_certificate(address, token.digest)
            answer = await request_certificate(address, root, ask)
        except Unavailable as error:
            last = error
            continue
        return NodeIdentity(answer.certificate, key_to_pem(key), answer.root_ca_cert), answer
    raise last


def grpc_address(address: str) -> str:
    host, door = join_address(address)
    return join_host_port(host, door - 1)


def address_towards(remote: str) -> str:
    """This machine's own address on the way to the manager; nothing is sent."""
    host, door = join_address(remote)
    failure: OSError | None = None
    try:
        for family, kind, _, _, place in socket.getaddrinfo(host, door, type=socket.SOCK_DGRAM):
            try:
                with socket.socket(family, kind | socket.SOCK_CLOEXEC) as probe:
                    probe.connect(place)
                    return str(probe.getsockname()[0])
            except OSError as error:  # a name may have an address of a family that this machine lacks
                failure = failure or error
    except OSError as error:
        failure = error
    reason = failure.strerror if failure is not None and failure.strerror else failure
    raise Unavailable(f"cannot reach the manager at {remote}: {reason}") from failure

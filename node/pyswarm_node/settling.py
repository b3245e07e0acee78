"""Which addresses a machine has as it becomes a member: chosen, checked, and with them what was asked for.

What becomes of them when the machine moves, `moving` decides.
"""

from __future__ import annotations

from pyswarm.v1 import node_pb2
from pyswarm_common.errors import InvalidArgument

from .addresses import choose_advertised, listen_address, names_port, read_interfaces, split_host_port
from .entrance import address_towards
from .paths import NodeRecord


async def first_record(request: node_pb2.InitRequest | node_pb2.JoinRequest) -> NodeRecord:
    """Without the ids, which come from the cluster. Raises InvalidArgument."""
    interfaces = await read_interfaces()
    advertised = request.advertise_addr
    if not advertised and isinstance(request, node_pb2.JoinRequest):
        advertised = address_towards(request.remote_addrs[0])
    address, port = choose_advertised(advertised, interfaces)
    listens_at = listen_address(request.listen_addr, interfaces, address)
    if not names_port(request.advertise_addr):
        port = split_host_port(listens_at, port)[1]  # advertised is where it listens, unless said otherwise
    data_path = address
    if request.data_path_addr:
        if names_port(request.data_path_addr):
            raise InvalidArgument("data path address must be a non-zero IP address or network interface")
        data_path, _ = choose_advertised(request.data_path_addr, interfaces, "--data-path-addr", address)
    return NodeRecord(
        node_id="",
        cluster_id="",
        address=address,
        data_path_address=data_path,
        listen_address=listens_at,
        manager_port=port,
        advertise=request.advertise_addr,
        data_path=request.data_path_addr,
        listen=request.listen_addr,
    )

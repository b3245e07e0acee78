"""What starts plain containers will do, as a program inside a lab host: asks pyswarmd's socket for their networks.

plain_client.py attach ID NAME NETWORK... | detach ID | list
"""

from __future__ import annotations

import sys

import grpc

from pyswarm.v1 import plain_pb2 as pb
from pyswarm.v1 import plain_pb2_grpc

_TIMEOUT_S = 60.0


def main(action: str, *arguments: str) -> None:
    with grpc.insecure_channel("unix:/run/pyswarm/pyswarm.sock") as channel:
        stub = plain_pb2_grpc.PlainNetworksStub(channel)
        if action == "attach":
            container_id, name, *networks = arguments
            wanted = [pb.PlainNetwork(network=network) for network in networks]
            request = pb.AttachPlainRequest(container_id=container_id, container_name=name, networks=wanted)
            print(stub.AttachPlain(request, timeout=_TIMEOUT_S).container.netns_path)
        elif action == "detach":
            stub.DetachPlain(pb.DetachPlainRequest(container=arguments[0]), timeout=_TIMEOUT_S)
        else:
            for container in stub.ListPlain(pb.ListPlainRequest(), timeout=_TIMEOUT_S).containers:
                print(container.container_name, *(address for place in container.places for address in place.addresses))


if __name__ == "__main__":
    main(*sys.argv[1:])

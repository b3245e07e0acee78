"""What a node's tables say of how clients find a service."""

from __future__ import annotations

import pytest

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm.v1 import types_pb2
from pyswarm_worker.core.tables import KnownTable


@pytest.mark.parametrize(
    ("service", "ingress", "expected"),
    [
        (pb.ServiceRecord(service_id="s", vips=["10.0.0.2"]), False, False),
        (pb.ServiceRecord(service_id="s", vips=[], endpoint_mode=types_pb2.ENDPOINT_MODE_DNSRR), False, True),
        (pb.ServiceRecord(service_id="s", vips=[]), False, True),
        (pb.ServiceRecord(service_id="s", vips=[]), True, False),
        (pb.ServiceRecord(service_id="other", vips=[]), False, False),
    ],
    ids=["virtual", "dnsrr", "of a bridge", "published", "another's"],
)
def test_what_has_no_virtual_address_is_found_by_name(service: pb.ServiceRecord, ingress: bool, expected: bool) -> None:
    network = types_pb2.Network(id="n", spec=types_pb2.NetworkSpec(name="net", ingress=ingress))
    table = KnownTable.of(pb.NetworkTable(network_id="n", network=network, services=[service]))
    assert table.is_found_by_name("s") is expected

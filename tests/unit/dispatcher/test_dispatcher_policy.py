"""A service's policy and its ports are in the tables of its networks, on the ingress network too."""

from __future__ import annotations

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.model import (
    EndpointSpec,
    NetworkAttachmentSpec,
    PortConfig,
    Protocol,
    PublishMode,
    Service,
    ServiceSpec,
    TaskSpec,
)
from pyswarm_manager.dispatcher.core import records
from pyswarm_overlay.types import ServicePort
from pyswarm_worker.core import tables


def test_policy_and_ports_reach_the_overlay() -> None:
    port = PortConfig(name="dns", protocol=Protocol.UDP, target_port=53, publish_mode=PublishMode.HOST)
    endpoint = EndpointSpec(allow_from=("web", "ingress"), ports=(port,))
    spec = ServiceSpec(name="db", endpoint=endpoint, task=TaskSpec(networks=(NetworkAttachmentSpec(target="back"),)))
    found = records.service_records(Service(id="svc", spec=spec), "ing")
    record = tables.service(pb.ServiceRecord.FromString(found["back"]))
    assert record.allow_from == ("web", "ingress")
    assert record.ports == (ServicePort(name="dns", protocol="udp", target=53),)

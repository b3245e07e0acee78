"""A service's policy and its ports are in the tables of its networks, on the ingress network too."""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.model import (
    EndpointSpec,
    Network,
    NetworkAttachmentSpec,
    NetworkSpec,
    PortConfig,
    Protocol,
    PublishMode,
    Service,
    ServiceSpec,
    SessionAffinity,
    TaskSpec,
)
from pyswarm_manager.dispatcher.core import records
from pyswarm_manager.dispatcher.core.tables import NetworkTables
from pyswarm_manager.store.apply import apply
from pyswarm_manager.store.changes import ChangeSet, Create
from pyswarm_manager.store.tables import Tables
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


def test_a_change_of_nothing_but_the_policy_is_told() -> None:
    """Whether a change concerns the tables is decided without making the records."""
    network = Network(id="back", spec=NetworkSpec(name="back"))
    spec = ServiceSpec(name="db", task=TaskSpec(networks=(NetworkAttachmentSpec(target="back"),)))
    old = Service(id="svc", spec=spec)
    view = Tables()
    apply(view, 1, ChangeSet((Create(network), Create(old)), 0.0))
    held = NetworkTables(view)
    for version, changed in enumerate(
        (
            replace(spec.endpoint, allow_from=("web",)),
            replace(spec.endpoint, session_affinity=SessionAffinity.CLIENT_IP),
            replace(spec.endpoint, ports=(PortConfig(target_port=80, publish_mode=PublishMode.HOST),)),
        ),
        2,
    ):
        held.take_changed()
        new = replace(old, spec=replace(spec, endpoint=changed))
        held.service_changed(old, new, version)
        assert held.take_changed() == {"back"}
        old = new

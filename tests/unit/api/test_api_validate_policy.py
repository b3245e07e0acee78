"""What `allow_from` may say."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import ContainerSpec, EndpointSpec, NetworkAttachmentSpec, PortConfig, ServiceSpec, TaskSpec
from pyswarm_manager.api.validate import check_service_spec, refuse


def spec(*allow_from: str, network: str = "back") -> ServiceSpec:
    task = TaskSpec(container=ContainerSpec(image="busybox"), networks=(NetworkAttachmentSpec(target=network),))
    return ServiceSpec(name="db", task=task, endpoint=EndpointSpec(allow_from=allow_from))


@pytest.mark.parametrize("sources", [(), ("web",), ("web", "api", "ingress"), ("none",), ("ingress",), ("db",)])
def test_names_and_words_are_accepted(sources: tuple[str, ...]) -> None:
    refuse(check_service_spec(spec(*sources)))


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [
        (("none", "web"), "goes with no other source"),
        (("web", "web"), "named twice"),
        (("",), "name must be provided"),
        (("10.0.0.0/8",), "must be valid as a DNS name component"),
        (("*",), "must be valid as a DNS name component"),
        (tuple(f"s{number}" for number in range(257)), "sources"),
    ],
)
def test_what_makes_no_sense_is_refused(sources: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence):
        refuse(check_service_spec(spec(*sources)))


def test_a_service_that_nobody_can_reach_over_a_network_has_no_policy() -> None:
    alone = replace(spec("web"), task=TaskSpec(container=ContainerSpec(image="busybox")))
    with pytest.raises(InvalidArgument, match="allow-from needs a network"):
        refuse(check_service_spec(alone))
    published = replace(alone.endpoint, ports=(PortConfig(target_port=80),))
    refuse(check_service_spec(replace(alone, endpoint=published)))


def test_the_hosts_own_network_has_no_policy() -> None:
    with pytest.raises(InvalidArgument, match="the host's own firewall decides"):
        refuse(check_service_spec(spec("web", network="host")))

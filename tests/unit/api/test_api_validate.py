"""What a spec may say, as tables; and that no spec, however odd, raises anything but a refusal."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pyswarm.v1 import types_pb2
from pyswarm_common.errors import InvalidArgument, PyswarmError
from pyswarm_common.model import (
    ClusterSpec,
    ContainerSpec,
    EndpointMode,
    EndpointSpec,
    HealthCheck,
    Mount,
    MountType,
    NetworkAttachmentSpec,
    NetworkSpec,
    NodeSpec,
    Placement,
    PlacementPreference,
    PortConfig,
    Protocol,
    PublishMode,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from pyswarm_manager.api.validate import (
    check_cluster_spec,
    check_network_spec,
    check_node_spec,
    check_service_spec,
    decode,
    refuse,
)

GOOD = ServiceSpec(name="web", task=TaskSpec(container=ContainerSpec(image="busybox")))


def container(**changes: Any) -> ServiceSpec:
    return replace(GOOD, task=replace(GOOD.task, container=replace(GOOD.task.container, **changes)))


def task(**changes: Any) -> ServiceSpec:
    return replace(GOOD, task=replace(GOOD.task, **changes))


def port(**changes: Any) -> PortConfig:
    return replace(PortConfig(target_port=80, published_port=8080), **changes)


def endpoint(*ports: PortConfig, mode: EndpointMode = EndpointMode.VIP) -> ServiceSpec:
    return replace(GOOD, endpoint=EndpointSpec(mode=mode, ports=ports))


def bind(target: str, source: str = "/src") -> Mount:
    return Mount(type=MountType.BIND, source=source, target=target)


@pytest.mark.parametrize(
    "spec",
    [
        GOOD,
        replace(GOOD, name="a"),
        replace(GOOD, name="A-b_9"),
        replace(GOOD, replicas=0),
        replace(GOOD, replicas=100_000),
        replace(GOOD, mode=ServiceMode.GLOBAL),
        container(image="registry.example:5000/a/b:v1"),
        container(image="busybox@sha256:" + "a" * 64),
        container(image="[::1]:5000/a"),
        container(env=("A=1", "B=", "C")),
        container(mounts=(bind("/a"), bind("/b"))),
        container(mounts=(Mount(type=MountType.VOLUME, target="/data"),)),
        container(mounts=(Mount(type=MountType.TMPFS, target="/tmp", tmpfs_size_bytes=1),)),
        container(stop_signal="SIGTERM"),
        container(stop_signal="usr1"),
        container(stop_signal="SIGRTMIN+3"),
        container(stop_signal="9"),
        container(healthcheck=HealthCheck(test=("CMD-SHELL", "true"), interval_s=1)),
        container(healthcheck=HealthCheck(test=("NONE",))),
        container(dns=("10.0.0.1", "::1"), hosts=("db:10.0.0.2", "db6:fe80::1")),
        container(cap_add=("NET_ADMIN", "CAP_SYS_TIME"), cap_drop=("ALL",), sysctls={"net.core.somaxconn": "1"}),
        task(resources=ResourceRequirements(limits=Resources(memory_bytes=4 << 20, nano_cpus=1_000_000))),
        task(placement=Placement(constraints=("node.role==worker", "node.labels.a != b"))),
        task(placement=Placement(preferences=(PlacementPreference(spread_descriptor="node.labels.zone"),))),
        endpoint(port(), port(protocol=Protocol.UDP)),
        endpoint(port(published_port=0), port(published_port=0, target_port=81)),
        endpoint(port(publish_mode=PublishMode.HOST), mode=EndpointMode.DNSRR),
    ],
    ids=repr,
)
def test_good_service_specs(spec: ServiceSpec) -> None:
    assert list(check_service_spec(spec)) == []


C = "task.container."


@pytest.mark.parametrize(
    ("spec", "path", "sentence"),
    [
        (replace(GOOD, name=""), "name", "name must be provided"),
        (replace(GOOD, name="a b"), "name", "name must be valid as a DNS name component: 'a b'"),
        (replace(GOOD, name="-a"), "name", "name must be valid as a DNS name component: '-a'"),
        (replace(GOOD, name="web\n"), "name", "name must be valid as a DNS name component: 'web\\n'"),
        (replace(GOOD, name="a" * 64), "name", "name must be 63 characters or fewer"),
        (replace(GOOD, labels={"": "x"}), "labels", "invalid label name ''"),
        (replace(GOOD, replicas=100_001), "replicas", "replicas must be between 0 and 100000"),
        (
            replace(GOOD, replicas=1, mode=ServiceMode.GLOBAL),
            "replicas",
            "replicas can only be used with replicated or replicated-job mode",
        ),
        (container(image=""), C + "image", "ContainerSpec: image reference must be provided"),
        (container(image="UPPER"), C + "image", "'UPPER' is not a valid repository/tag"),
        (container(image="a:b:c"), C + "image", "is not a valid repository/tag"),
        (container(image="a" * 1000), C + "image", "is not a valid repository/tag"),
        (container(env=("=x",)), C + "env[0]", "must have the form NAME=value"),
        (container(env=("A\x00=x",)), C + "env[0]", "zero byte"),
        (container(args=("a\x00",)), C + "args[0]", "zero byte"),
        (container(hostname="-a"), C + "hostname", "invalid hostname format"),
        (container(dir="tmp"), C + "dir", "needs to be an absolute path"),
        (container(mounts=(bind("rel"),)), C + "mounts[0].target", "mount path must be absolute"),
        (container(mounts=(bind(""),)), C + "mounts[0].target", "field Target must not be empty"),
        (container(mounts=(bind("/../"),)), C + "mounts[0].target", "destination can't be '/'"),
        (container(mounts=(bind("/a", "rel"),)), C + "mounts[0].source", "mount path must be absolute"),
        (container(mounts=(bind("/a"), bind("/a/"))), C + "mounts[1].target", "duplicate mount point: /a/"),
        (
            container(mounts=(Mount(type=MountType.VOLUME, source="../x", target="/a"),)),
            C + "mounts[0].source",
            "invalid volume name",
        ),
        (
            container(mounts=(Mount(type=MountType.TMPFS, source="x", target="/a"),)),
            C + "mounts[0].source",
            "field Source must not be specified",
        ),
        (container(stop_signal="NOPE"), C + "stop_signal", "invalid signal: 'NOPE'"),
        (container(stop_signal="0"), C + "stop_signal", "invalid signal: '0'"),
        (container(stop_grace_period_s=-1.0), C + "stop_grace_period_s", "cannot be negative"),
        (container(stop_grace_period_s=math.nan), C + "stop_grace_period_s", "at most ten years"),
        (container(healthcheck=HealthCheck(test=("SHELL",))), C + "healthcheck.test", "unknown type 'SHELL'"),
        (
            container(healthcheck=HealthCheck(interval_s=1e-6)),
            C + "healthcheck.interval_s",
            "Interval in Healthcheck cannot be less than 1ms",
        ),
        (container(dns=("ns1",)), C + "dns[0]", "'ns1' is not an ip address"),
        (container(hosts=("db=10.0.0.1",)), C + "hosts[0]", "bad format for add-host"),
        (container(cap_add=("net admin",)), C + "cap_add[0]", "invalid capability"),
        (container(sysctls={"x": "1"}), C + "sysctls", "is not of the form"),
        (
            task(resources=ResourceRequirements(limits=Resources(memory_bytes=1 << 20))),
            "task.resources.limits.memory_bytes",
            "invalid memory value 1048576: Must be at least 4MiB",
        ),
        (
            task(resources=ResourceRequirements(limits=Resources(nano_cpus=1))),
            "task.resources.limits.nano_cpus",
            "Must be at least 0.001",
        ),
        (
            task(resources=ResourceRequirements(reservations=Resources(memory_bytes=-1))),
            "task.resources.reservations.memory_bytes",
            "Must be at least 4MiB",
        ),
        (
            task(
                resources=ResourceRequirements(
                    limits=Resources(memory_bytes=8 << 20), reservations=Resources(memory_bytes=16 << 20)
                )
            ),
            "task.resources.reservations.memory_bytes",
            "the memory reservation must not be above the memory limit",
        ),
        (
            task(resources=ResourceRequirements(limits=Resources(pids=-1))),
            "task.resources.limits.pids",
            "cannot be negative",
        ),
        (task(restart=RestartPolicy(delay_s=-1.0)), "task.restart.delay_s", "restart-delay cannot be negative"),
        (task(restart=RestartPolicy(window_s=-1.0)), "task.restart.window_s", "restart-window cannot be negative"),
        (
            task(placement=Placement(constraints=("node.role==king",))),
            "task.placement.constraints[0]",
            "node.role is worker or manager",
        ),
        (
            task(placement=Placement(preferences=(PlacementPreference(spread_descriptor="zone"),))),
            "task.placement.preferences[0].spread_descriptor",
            "use node.labels.<name>",
        ),
        (task(networks=(NetworkAttachmentSpec(),)), "task.networks[0].target", "a network needs a name or an id"),
        (
            task(networks=(NetworkAttachmentSpec(target="host"), NetworkAttachmentSpec(target="web"))),
            "task.networks",
            "container cannot be disconnected from host network or connected to host network",
        ),
        (
            replace(
                task(networks=(NetworkAttachmentSpec(target="host"),)),
                endpoint=EndpointSpec(ports=(port(publish_mode=PublishMode.HOST),)),
            ),
            "endpoint.ports",
            "conflicting options: port publishing and the host network",
        ),
        (
            task(networks=(NetworkAttachmentSpec(target="bridge"),)),
            "task.networks[0].target",
            "network bridge cannot be used with services",
        ),
        (
            task(networks=(NetworkAttachmentSpec(target="a", aliases=("a b",)),)),
            "task.networks[0].aliases",
            "invalid network alias",
        ),
        (
            replace(GOOD, update=UpdateConfig(delay_s=-1.0)),
            "update.delay_s",
            "TaskSpec: update-delay cannot be negative",
        ),
        (
            replace(GOOD, rollback=UpdateConfig(max_failure_ratio=1.5)),
            "rollback.max_failure_ratio",
            "TaskSpec: rollback-maxfailureratio cannot be less than 0 or bigger than 1",
        ),
        (endpoint(port(target_port=0)), "endpoint.ports[0].target_port", "must be between 1 and 65535"),
        (endpoint(port(published_port=65536)), "endpoint.ports[0].published_port", "must be between 1 and 65535"),
        (
            endpoint(port(), port(target_port=81)),
            "endpoint.ports[1].published_port",
            "EndpointSpec: duplicate published ports provided",
        ),
        (
            endpoint(port(), mode=EndpointMode.DNSRR),
            "endpoint.ports[0].publish_mode",
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        ),
        (replace(GOOD, labels={"a": "x" * (1 << 20)}), "", "the service spec is too large"),
    ],
)
def test_bad_service_specs(spec: ServiceSpec, path: str, sentence: str) -> None:
    found = list(check_service_spec(spec))
    assert [field for field, _ in found] == [path]
    assert sentence in found[0][1]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (NetworkSpec(name="a b"), "DNS name component"),
        (NetworkSpec(name="a", driver="null"), 'only one instance of "null" network is allowed'),
        (NetworkSpec(name="a", subnets=("10.0.0.1/24",)), "it should be 10.0.0.0/24"),
        (NetworkSpec(name="a", subnets=("10.0.0.0/31",)), "prefix length must be between"),
        (NetworkSpec(name="a", subnets=("10.0.0.0",)), "prefix length is missing"),
        (NetworkSpec(name="a", subnets=("127.0.0.0/16",)), "reserved"),
        (NetworkSpec(name="a", subnets=("fe80::/64",)), "reserved for another purpose"),
        (NetworkSpec(name="a", subnets=("fd00::1/64",)), "it should be fd00::/64"),
        (NetworkSpec(name="a", subnets=("fd00::/127",)), "prefix length must be between 16 and 126"),
        (NetworkSpec(name="a", subnets=("10.0.0.0/16", "10.0.1.0/24")), "overlap"),
        (NetworkSpec(name="a", gateways=("10.0.0.1",)), "every ip-range or gateway must have a corresponding subnet"),
        (NetworkSpec(name="a", subnets=("10.0.0.0/24",), gateways=("10.1.0.1",)), "no matching subnet for gateway"),
        (NetworkSpec(name="a", options={"parent": "eth0"}), "unknown network option 'parent'"),
    ],
)
def test_bad_network_specs(spec: NetworkSpec, sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence):
        refuse(check_network_spec(spec))


def test_good_network_specs() -> None:
    refuse(check_network_spec(NetworkSpec(name="a", subnets=("10.0.0.0/24",), gateways=("10.0.0.254",))))
    refuse(check_network_spec(NetworkSpec(name="ingress", ingress=True)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": ""}, "name must be provided"),
        ({"task_history_limit": 5000}, "task history limit"),
        ({"heartbeat_period_s": 0.0}, "heartbeat period"),
        ({"node_cert_expiry_s": 60.0}, "minimum certificate expiry time must be 1h"),
        ({"node_cert_expiry_s": math.inf}, "ten years"),
        ({"data_path_port": 22}, "data path port"),
        ({"subnet_size": 31}, "subnet size"),
        ({"default_address_pools": ("10.0.0.0/28",)}, "smaller than a subnet"),
    ],
)
def test_bad_cluster_specs(changes: dict[str, Any], sentence: str) -> None:
    refuse(check_cluster_spec(ClusterSpec()))
    with pytest.raises(InvalidArgument, match=sentence):
        refuse(check_cluster_spec(replace(ClusterSpec(), **changes)))


def test_the_message_is_one_line_that_names_the_errors() -> None:
    spec = replace(GOOD, name="", labels={f"={n}": "" for n in range(20)})
    with pytest.raises(InvalidArgument) as caught:
        refuse(check_service_spec(spec))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("name must be provided; ")
    assert str(caught.value).endswith("and 16 more")
    assert len(caught.value.violations) == 21


def test_an_unknown_enumeration_is_a_refusal() -> None:
    with pytest.raises(InvalidArgument, match="does not know"):
        decode(ServiceSpec, types_pb2.ServiceSpec(mode=77))  # type: ignore[arg-type]


# ---- whatever arrives, only refusals

MESSAGES = {
    types_pb2.ServiceSpec: (ServiceSpec, check_service_spec),
    types_pb2.NetworkSpec: (NetworkSpec, check_network_spec),
    types_pb2.NodeSpec: (NodeSpec, check_node_spec),
    types_pb2.ClusterSpec: (ClusterSpec, check_cluster_spec),
}


def judged(message: Any) -> None:
    struct, check = MESSAGES[type(message)]
    with contextlib.suppress(PyswarmError):
        refuse(check(decode(struct, message)))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(MESSAGES, key=lambda cls: cls.__name__)), st.binary(max_size=400))
def test_random_bytes(message_type: Any, data: bytes) -> None:
    message = message_type()
    try:
        message.ParseFromString(data)
    except Exception:  # not a message at all: gRPC refuses it before us
        return
    judged(message)


ODD = ["/", "a:b", "::1", "10.0.0.0/8", "CMD", "node.role==", "é", "-"]
TEXT = st.one_of(st.text(max_size=30), st.sampled_from(ODD))
FLOATS = st.floats(allow_nan=True, allow_infinity=True)


def field_value(field: Any, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return random_message(field.message_type, depth - 1)
    kind = field.cpp_type
    if kind == field.CPPTYPE_STRING:
        return TEXT if field.type == field.TYPE_STRING else st.binary(max_size=20)
    if kind in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return FLOATS
    if kind == field.CPPTYPE_BOOL:
        return st.booleans()
    if kind == field.CPPTYPE_ENUM:
        return st.sampled_from([0, 1, 2, 3, 99])
    bits = {field.CPPTYPE_INT32: (-(2**31), 2**31 - 1), field.CPPTYPE_UINT32: (0, 2**32 - 1),
            field.CPPTYPE_INT64: (-(2**63), 2**63 - 1), field.CPPTYPE_UINT64: (0, 2**64 - 1)}  # fmt: skip
    return st.integers(*bits[kind])


@st.composite
def random_message(draw: Any, descriptor: Any, depth: int = 5) -> Any:
    message = getattr(types_pb2, descriptor.name, None)
    if message is None or depth < 0:
        return None
    values = message()
    for field in descriptor.fields:
        if not draw(st.booleans()):
            continue
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if is_map:
            getattr(values, field.name).update(draw(st.dictionaries(TEXT, TEXT, max_size=3)))
        elif field.is_repeated:
            items = draw(st.lists(field_value(field, depth), max_size=3))
            getattr(values, field.name).extend(item for item in items if item is not None)
        else:
            value = draw(field_value(field, depth))
            if field.message_type is not None and value is not None:
                getattr(values, field.name).CopyFrom(value)
            elif value is not None:
                setattr(values, field.name, value)
    return values


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["ServiceSpec", "NetworkSpec", "NodeSpec", "ClusterSpec"]).flatmap(
    lambda name: random_message(types_pb2.DESCRIPTOR.message_types_by_name[name])
))  # fmt: skip
def test_random_specs(message: Any) -> None:
    judged(message)

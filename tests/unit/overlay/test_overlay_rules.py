"""nftables: the host's document, the sandboxes' messages, records on disk."""

from __future__ import annotations

from pathlib import Path

from overlay_values import endpoint, table

from pyswarm_overlay import Attachment, IngressPort, Sandbox
from pyswarm_overlay.core import rules
from pyswarm_overlay.core.rules import HostRules, Listener
from pyswarm_overlay.gateway import PortHolder, PortKey
from pyswarm_overlay.records import IngressRecord, Records, SandboxRecord

HOST = HostRules("ps_overlay", "ps-g*", "172.18.0.0/16", "ps-ing", "10.9.0.2", ())


def with_listeners(*listeners: Listener) -> HostRules:
    return HostRules("ps_overlay", "ps-g*", "172.18.0.0/16", "ps-ing", "10.9.0.2", listeners)


def test_only_our_table_is_touched() -> None:
    document = rules.host_document(with_listeners(Listener("tcp", 80, "", (("10.0.0.1", 80), ("10.0.0.2", 80)))))
    for command in document:
        (thing,) = next(iter(command.values())).values()
        assert thing.get("table", thing.get("name")) == "ps_overlay"


def test_a_listing_tells_the_targets_of_each_port() -> None:
    two = Listener("tcp", 8080, "", (("172.18.0.2", 80), ("10.9.0.7", 80)))
    one = Listener("udp", 53, "192.0.2.1", (("172.18.0.3", 53),))
    none = Listener("tcp", 9, "", ())
    listing = rules.as_listing(rules.host_document(with_listeners(two, one, none)))
    targets = rules.observed_targets(listing)
    assert targets["tcp_8080_any"] == ("172.18.0.2", "10.9.0.7")
    assert targets["udp_53_192_0_2_1"] == ("172.18.0.3",)
    assert "tcp_9_any" not in targets


def test_records_come_back_and_broken_ones_do_not(tmp_path: Path) -> None:
    records = Records(tmp_path)
    attachment = Attachment(network_id="n1", endpoint_id="t1", addresses=("10.0.1.5/24",))
    record = SandboxRecord(sandbox=Sandbox(sandbox_id="c1", attachments=(attachment,)), gateway_address="172.18.0.2/16")
    long = SandboxRecord(sandbox=Sandbox(sandbox_id="x" * 128))
    network = table(endpoint(5))
    ingress = IngressRecord(
        addresses=("10.9.0.2/24",), ports=(IngressPort(published_port=1, target_port=2, service_id="s"),)
    )
    for one in (record, long):
        records.save_sandbox(one)
    records.save_network(network)
    records.save_ingress(ingress)
    again = Records(tmp_path)
    assert again.sandboxes() == [record, long]
    assert (again.networks(), again.ingress()) == ([network], ingress)
    for path in (tmp_path / "sandboxes").iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    assert again.sandboxes() == []
    records.remove_all()
    assert list(tmp_path.iterdir()) == []


def test_a_port_has_one_owner() -> None:
    holder, other = PortHolder(), PortHolder()
    probe = PortKey("tcp", 0, "127.0.0.1")
    assert holder.hold(probe, "a")
    bound = holder._held[probe][0]
    assert bound is not None
    key = PortKey("tcp", bound.getsockname()[1], "127.0.0.1")
    assert not other.hold(key, "b")
    holder.release(probe)
    assert other.hold(key, "b")
    assert other.hold(key, "b")
    assert not other.hold(key, "c")
    other.keep("b", [])
    assert other.hold(key, "c")
    other.close()

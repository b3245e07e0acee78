"""Records on disk: what comes back after a restart, and what is left out."""

from __future__ import annotations

from pathlib import Path

from overlay_values import endpoint, table

from pyswarm_overlay import Attachment, IngressPort, Sandbox
from pyswarm_overlay.records import IngressRecord, Records, SandboxRecord


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

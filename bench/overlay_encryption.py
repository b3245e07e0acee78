"""Throughput and latency between two sandboxes on two hosts: an overlay network, and an encrypted one, in turn.

    .venv/bin/python -m bench.overlay_encryption [SECONDS]

Hosts are namespaces on a switch of their own, as in the integration tests. Needs root and iperf3. Prints JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration" / "overlay"))

from overlay_lab import Host, Lab, lab_of
from sealed_lab import Managers, on, sealed_table, wait_until
from test_overlay_kernel import box

from pyswarm_overlay import Attachment, EndpointRecord, NetworkTable

ROUNDS = 3


def plain_table(*endpoints: EndpointRecord) -> NetworkTable:
    return NetworkTable(
        network_id="plain", name="plain", vni=4099, subnets=("10.0.3.0/24",), version=1, endpoints=endpoints
    )


def plain_endpoint(host: Host, number: int) -> EndpointRecord:
    address = f"10.0.3.{number}"
    return EndpointRecord(endpoint_id=f"p{number}", name=address, addresses=(address,), node_address=host.address)


def start(lab: Lab) -> None:
    """c11 and c12, each on both networks."""
    places = list(enumerate(lab.hosts, 11))
    for number, host in places:
        host.start()
        host.call("apply_table", sealed_table(*(on(other, n) for n, other in places)))
        host.call("apply_table", plain_table(*(plain_endpoint(other, n) for n, other in places)))
        plain = Attachment(network_id="plain", endpoint_id=f"p{number}", addresses=(f"10.0.3.{number}/24",))
        host.call("attach", box(number, attachments=(*box(number).attachments, plain)))
    Managers(lab.hosts).relay()


def inside(host: Host, number: int, *command: str) -> str:
    return host.run(*command, netns=host.netns(f"c{number}"))


def answers(host: Host, address: str) -> bool:
    try:
        inside(host, 11, "ping", "-c1", "-W1", address)
    except subprocess.CalledProcessError:
        return False
    return True


def gbits(first: Host, second: Host, address: str, seconds: int) -> float:
    server = subprocess.Popen(
        ["nsenter", f"--net={second.netns('c12')}", "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL
    )
    try:
        listening = ("sh", "-c", "until ss -ltn | grep -q :5201; do sleep 0.05; done")
        inside(second, 12, *listening)
        said: dict[str, Any] = json.loads(inside(first, 11, "iperf3", "-J", "-t", str(seconds), "-c", address))
        return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9
    finally:
        server.kill()
        server.wait()


def round_trip_us(first: Host, address: str) -> float:
    said = inside(first, 11, "ping", "-q", "-c", "200", "-i", "0.005", address)
    return float(said.rpartition(" = ")[2].split("/")[1]) * 1000


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as directory, lab_of(Path(directory), hosts=2) as lab:
        start(lab)
        first, second = lab.hosts
        targets = {"plain": "10.0.3.12", "encrypted": "10.0.1.12"}
        for address in targets.values():
            wait_until(lambda address=address: answers(first, address), f"{address} does not answer")
        rates: dict[str, list[float]] = {name: [] for name in targets}
        times: dict[str, list[float]] = {name: [] for name in targets}
        for _ in range(ROUNDS):
            for name, address in targets.items():
                rates[name].append(gbits(first, second, address, seconds))
                times[name].append(round_trip_us(first, address))
    found = {name: {"gbits": round(median(rates[name]), 2), "rtt_us": round(median(times[name]))} for name in targets}
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""Every address that is given out is one of its network's, nobody's by name, and the one that a slot has for good.

That none is given twice, `stores` looks at. Whose static address a task may not have is not looked at here: one that
was given out in a plan made before stays until its holder ends, and who asked for it waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from pyswarm_common.model import Network, NetworkAttachment, Service, Task
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.static_addresses import address_of_slot, virtual_address
from pyswarm_simulator.checks.violation import Violation


class AddressChecks:
    """Told what each index did, in order."""

    def __init__(self) -> None:
        self._networks: dict[str, Network] = {}

    def changed(self, index: int, events: tuple[Event, ...]) -> None:
        for _, new in events:
            if isinstance(new, Network):
                self._networks[new.id] = new
        for event in events:
            self._look_at(index, event)

    def _look_at(self, index: int, event: Event) -> None:
        old, new = event
        match new:
            case Task() if not new.status.state.is_terminal:
                before = old.networks if isinstance(old, Task) else ()
                for attachment in new.networks if new.networks != before else ():
                    self._check_task(index, new, attachment)
            case Service():
                for vip in new.endpoint.vips:
                    self._check_all(index, f"service {new.id}", vip.network_id, (vip.address,))
                self._check_virtual(index, new)
            case None if isinstance(event.old, Network):
                del self._networks[event.old.id]
            case _:
                pass

    def _check_task(self, index: int, task: Task, attachment: NetworkAttachment) -> None:
        if not attachment.addresses:
            return
        who = f"task {task.id}"
        network = self._check_all(index, who, attachment.network_id, attachment.addresses)
        families = sorted(ip_address(_bare(text)).version for text in attachment.addresses)
        if families != sorted({ip_network(subnet).version for subnet in network.subnets}):
            raise Violation(f"addresses: {who} has {attachment.addresses} of {network.subnets} at index {index}")
        for wanted in task.spec.networks:
            if wanted.target == network.id:
                for text in attachment.addresses:
                    address = ip_address(_bare(text))
                    number = address_of_slot(wanted, address.version, max(task.slot, 1))
                    if number is not None and number != int(address):
                        raise Violation(f"addresses: {who} has {address}, which is not its slot's, at index {index}")

    def _check_virtual(self, index: int, service: Service) -> None:
        """Once allocated, it is the one that was asked for: nobody else can have it, as its range is the workload's."""
        for wanted in service.spec.task.networks:
            for vip in service.endpoint.vips:
                address = ip_address(_bare(vip.address))
                asked = virtual_address(wanted, address.version)
                if vip.network_id == wanted.target and asked is not None and asked != int(address):
                    raise Violation(f"addresses: service {service.id} has {address} for another one at index {index}")

    def _check_all(self, index: int, who: str, network_id: str, texts: Iterable[str]) -> Network:
        network = self._networks.get(network_id)
        if network is None:
            raise Violation(f"addresses: {who} has some of network {network_id}, which is gone, at index {index}")
        named = {*network.gateways, *network.spec.auxiliary_addresses.values()}
        for text in texts:
            address = ip_address(_bare(text))
            if str(address) in named or not any(address in ip_network(subnet) for subnet in network.subnets):
                raise Violation(f"addresses: {who} has {text}, which is nobody's in {network.subnets}, at {index}")
        return network


def _bare(text: str) -> str:
    return text.partition("/")[0]
